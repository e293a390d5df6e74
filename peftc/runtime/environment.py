"""What peftc finds where it runs, and what of it works.

In: nothing.  Out: `Finding`s: versions, devices, compilers, and small runs of what
peftc needs.  A run that fails is a finding and no error: whoever asks wants to know.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from peftc.rewrite.launch import is_interpreted
from peftc.runtime.backend import KERNELS, RUNNERS

if TYPE_CHECKING:
    from torch import nn

State: TypeAlias = Literal["ok", "absent", "failed"]
Compile: TypeAlias = Callable[["nn.Module", str], Any]
"""Compiles some spec into a model for a backend, as `peftc.compile` does."""

NEEDED = ("peftc", "torch", "transformers", "safetensors", "lark", "networkx", "typer")
USEFUL = ("accelerate", "peft", "triton")
LEAST_TORCH = (2, 11)
EAGER = "eager"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at; `absent` is something peftc can do without."""

    group: str
    name: str
    state: State
    detail: str


def findings(compile: Compile, *, backends: tuple[str, ...]) -> Iterator[Finding]:
    """Look at everything; the runs, which take longest, come last."""
    yield Finding("versions", "python", "ok", platform.python_version())
    yield from (_package(name, "failed") for name in NEEDED)
    yield from (_package(name, "absent") for name in USEFUL)
    yield _torch()
    yield from _devices()
    yield from _compilers()
    for backend in backends:
        yield _run(compile, backend)


def _package(name: str, missing: State) -> Finding:
    try:
        return Finding("versions", name, "ok", version(name))
    except PackageNotFoundError:
        return Finding("versions", name, missing, "not installed")


def _torch() -> Finding:
    """The interfaces of Dynamo that are used came with LEAST_TORCH."""
    have = tuple(int(n) for n in torch.__version__.split(".")[:2])
    state: State = "ok" if have >= LEAST_TORCH else "failed"
    least = ".".join(map(str, LEAST_TORCH))
    return Finding("versions", f"torch >= {least}", state, torch.__version__)


def _devices() -> Iterator[Finding]:
    threads = f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    yield Finding("devices", "cpu", "ok", threads)
    if not torch.cuda.is_available():
        yield Finding("devices", "cuda", "absent", "torch sees none")
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        detail = f"{card.name}, {card.total_memory / 2**30:.0f} GiB"
        yield Finding("devices", f"cuda:{number}", "ok", detail)


def _compilers() -> Iterator[Finding]:
    """What the inductor backend needs: a C++ compiler, and triton for a card."""
    found = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), "")
    state: State = "ok" if found else "absent"
    yield Finding("compilers", "c++", state, found or "the inductor backend needs one")
    has_triton = find_spec("triton") is not None
    detail = "for cards" if has_triton else "the inductor backend needs it on a card"
    yield Finding("compilers", "triton", "ok" if has_triton else "absent", detail)


def _run(compile: Compile, backend: str) -> Finding:
    """A small model is compiled and trained for a step; verified if run eagerly, as
    what is promised does not depend on what runs the graph."""
    device = _device(backend)
    if device is None:
        return Finding("runs", backend, "absent", "kernels need a graphics card")
    try:
        tuned = compile(_model().to(device), backend)
        ids = torch.arange(2, 18, device=device).view(2, 8)
        tuned(input_ids=ids, labels=ids).loss.backward()
        checks = tuned.peftc.verify() if backend == EAGER else ()
    except Exception as error:
        # Whatever stops it is what there is to tell.
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Finding("runs", backend, "failed", line)
    failed = [check.name for check in checks if check.verdict == "failed"]
    if failed:
        return Finding("runs", backend, "failed", f"not verified: {failed[0]}")
    verified = ", verified" * bool(checks)
    return Finding("runs", backend, "ok", f"compiled, trained for a step{verified}")


def _device(backend: str) -> str | None:
    """Where a backend is tried; None if there is no such device."""
    if backend != KERNELS or is_interpreted():
        return "cpu"
    return "cuda" if torch.cuda.is_available() else None


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    facts: dict[str, Any] = {"tie_word_embeddings": False, "num_attention_heads": 4}
    facts |= {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    facts |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(vocab_size=64, **facts))


BACKENDS = tuple(RUNNERS)
