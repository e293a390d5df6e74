"""Generated kernels, imported and launched: the one place that imports Triton.

In: a `KernelSource`.  Out: its functions.  Under TRITON_INTERPRET=1 kernels run on the
CPU in Triton's interpreter; that is chosen where Triton is first imported.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import torch

from peftc.codegen.kernels.schedules import few, schedule_for, splits
from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import MissingExtra
from peftc.expr.evaluate import MAPS, apply_call
from peftc.rewrite.module_cache import folder, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from peftc.codegen.kernels.launches import Launch
    from peftc.codegen.kernels.source import KernelSource

SEEDS = 1 << 62
PART = 1024
"""Tokens that a program of a column kernel goes over at least, if there are so many."""
PARTS = 16
"""The most parts that tokens are split into: their sums are all in memory at once."""


def is_interpreted() -> bool:
    """Whether kernels run in the interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def load(source: KernelSource, name: str) -> Callable[..., Any]:
    """The `forward` or the `backward` of a source.

    Raises:
        PeftcError: if Triton is not installed.
    """
    if importlib.util.find_spec("triton") is None:
        what = "a generated kernel"
        raise fail(MissingExtra(what=what, package="triton", install="'peftc[gpu]'"))
    path = stored(getattr(source, name), folder())
    spec = importlib.util.spec_from_file_location(f"peftc_{path.stem}", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(_names(source.launches))
    function: Callable[..., Any] = getattr(module, name)
    return function


def _names(launches: Mapping[str, Launch]) -> dict[str, Any]:
    """What the functions of a module call."""

    def run(kernel: Any, like: Tensor, args: Sequence[Any], parts: int = 0) -> None:
        _run(launches[kernel.__name__], kernel, like, args, parts)

    own = {"run": run, "rows": rows, "empty": empty, "parts": parts, "draw": draw}
    own |= {"few": few, "splits": splits}
    return {**MAPS, **own, "call": apply_call}


def _run(
    launch: Launch, kernel: Any, like: Tensor, args: Sequence[Any], over: int
) -> None:
    import triton

    tokens = like.shape[0]
    schedule = schedule_for(launch, tokens, architecture(like))
    blocks = -(-launch.width // schedule.bf) if launch.width else 1
    rows = -(-tokens // schedule.bm)
    grid = (blocks, over) if launch.grid == "column" else (rows, over or blocks)
    dtype = getattr(triton.language, str(like.dtype).removeprefix("torch."))
    kernel[grid](
        *args,
        tokens,
        BM=schedule.bm,
        BF=schedule.bf,
        DT=dtype,
        DD=triton.language.float32 if is_interpreted() else dtype,
        num_warps=schedule.warps,
        num_stages=schedule.stages,
        enable_fp_fusion=True,
    )


def architecture(like: Tensor) -> int:
    """The architecture of a tensor's device, 90 for sm_90; 0 for the interpreter."""
    if is_interpreted():
        return 0
    major, minor = torch.cuda.get_device_capability(like.device)
    return major * 10 + minor


def rows(value: Tensor) -> Tensor:
    """An activation whose rows are whole: features side by side."""
    return value if value.stride(-1) == 1 else value.contiguous()


def empty(like: Tensor, shape: list[int], dtype: torch.dtype | None = None) -> Tensor:
    """Room for a value."""
    return like.new_empty(shape, dtype=dtype)


def parts(like: Tensor) -> int:
    """Into how many parts the tokens are split where they are summed.

    It depends on their number alone, so that equal runs add in one order.
    """
    return max(1, min(PARTS, like.shape[0] // PART))


def draw(like: Tensor) -> Tensor:
    """A seed, on the device, so that nothing waits for it."""
    return torch.randint(SEEDS, (), device=like.device)
