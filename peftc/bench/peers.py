"""What is compared: the frozen base, others' implementations, our backends.

In: a frozen base and a case.  Out: a model that trains the case's method, or the reason
why there is none, which the report says.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftc.api import compile
from peftc.bench.choices import unknown
from peftc.tuning.extras import is_there, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from peftc.bench.cases import Case
    from peftc.bench.workloads import Workload

FROZEN, FROZEN_COMPILED = "frozen", "frozen compiled"
EAGER, PLAIN, INDUCTOR = "eager", "plain", "inductor"
PEFT, PEFT_HALF, PEFT_COMPILED = "PEFT", "PEFT bf16", "PEFT compiled"
LIGER, HUB = "PEFT + Liger", "AdapterHub"
OURS = (EAGER, PLAIN, INDUCTOR)
"""Backends of peftc."""


@dataclass(frozen=True)
class Peer:
    """`make` takes a base, which it may change, and a case.

    `lacks` says why there is no model of a case on a workload; "" if there is one.
    """

    about: str
    make: Callable[[Any, Case], Any]
    lacks: Callable[[Case, Workload], str] = lambda case, workload: ""


def _ours(backend: str) -> Peer:
    def make(base: Any, case: Case) -> Any:
        return compile(base, case.spec, backend=backend)

    return Peer(f"peftc, backend {backend}", make)


def _peft(base: Any, case: Case, **options: Any) -> Any:
    peft = require("peft", "a comparison with PEFT")
    assert case.config is not None
    return peft.get_peft_model(base, case.config(peft), **options).train()


def _peft_half(base: Any, case: Case) -> Any:
    return _peft(base, case, autocast_adapter_dtype=False)


def _compiled(model: Any) -> Any:
    return torch.compile(model, dynamic=False)


def _liger(base: Any, case: Case) -> Any:
    module = "liger_kernel.transformers"
    liger = require("liger_kernel", "a comparison with Liger", module)
    liger._apply_liger_kernel_to_instance(model=base)
    return _peft(base, case)


def _lacks_peft(case: Case, workload: Workload) -> str:
    if not is_there("peft"):
        return "the package `peft` is not installed"
    if workload.family != "llama":
        return "compared on a Llama only"
    return "" if case.config else case.why_not


def _lacks_half(case: Case, workload: Workload) -> str:
    apart = "" if workload.dtype == "bfloat16" else "the base is no bfloat16"
    return apart or _lacks_peft(case, workload)


def _lacks_liger(case: Case, workload: Workload) -> str:
    if not is_there("liger_kernel"):
        return "the package `liger_kernel` is not installed"
    if not torch.cuda.is_available():
        return "its kernels need a graphics card"
    return _lacks_peft(case, workload)


def _lacks_hub(case: Case, workload: Workload) -> str:
    if not is_there("adapters"):
        return "the package `adapters` is not installed"
    return "no configuration of `adapters` is written down for this method"


PEERS: Mapping[str, Peer] = {
    FROZEN: Peer("the base, nothing trained", lambda base, case: base),
    FROZEN_COMPILED: Peer(
        "torch.compile of the base", lambda base, case: _compiled(base)
    ),
    EAGER: _ours(EAGER),
    PLAIN: _ours(PLAIN),
    INDUCTOR: _ours(INDUCTOR),
    PEFT: Peer("Hugging Face PEFT, its defaults", _peft, _lacks_peft),
    PEFT_HALF: Peer("Hugging Face PEFT, adapters in bfloat16", _peft_half, _lacks_half),
    PEFT_COMPILED: Peer(
        "torch.compile of PEFT",
        lambda base, case: _compiled(_peft(base, case)),
        _lacks_peft,
    ),
    LIGER: Peer("PEFT on a base with Liger's kernels", _liger, _lacks_liger),
    HUB: Peer("AdapterHub's `adapters`", lambda base, case: None, _lacks_hub),
}


def known(names: Iterable[str]) -> tuple[str, ...]:
    """The names, if all are peers'; blanks may be written as `-`.

    Raises:
        PeftcError: PEFT711 for one that is none.
    """
    plain = {name.lower().replace(" ", "-"): name for name in PEERS}
    found = []
    for name in names:
        key = name.strip().lower().replace(" ", "-")
        if key not in plain:
            raise unknown("--peers", key, plain)
        found.append(plain[key])
    return tuple(found)


def built(
    names: Iterable[str], case: Case, workload: Workload, base: Any
) -> tuple[dict[str, Any], dict[str, str]]:
    """Models by the names of peers, and why others are missing."""
    models, missing = {}, {}
    for name in names:
        if reason := PEERS[name].lacks(case, workload):
            missing[name] = reason
        else:
            models[name] = PEERS[name].make(copy.deepcopy(base), case)
    return models, missing
