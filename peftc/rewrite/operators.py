"""Generated kernel functions as operators of torch.

In: a `Generated`.  Out: `torch.ops.peftc.k...`, named after the module's content: one
operation to whoever traces a graph, with results whose shapes and types are those of
the function itself, run without its kernels.
"""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

import torch

from peftc.rewrite.checked import Checked
from peftc.rewrite.launch import load
from peftc.rewrite.module_cache import digest

if TYPE_CHECKING:
    from torch import Tensor

    from peftc.rewrite.generated import Generated
    from peftc.rewrite.step import Run

NAMESPACE = "peftc"


@cache
def _library() -> torch.library.Library:
    return torch.library.Library(NAMESPACE, "FRAGMENT")


_KNOWN: dict[str, Run] = {}


def operator(function: Generated) -> Run:
    """The operator of a function; equal ones have one.

    Raises:
        PeftcError: if Triton is not installed.
    """
    name = name_of(function)
    if name not in _KNOWN:
        _KNOWN[name] = _registered(name, function)
    return _KNOWN[name]


def name_of(function: Generated) -> str:
    """What a function's operator is called."""
    return digest(function.text + function.wide)


def _registered(name: str, function: Generated) -> Run:
    checked, library = Checked(function), _library()
    takes = ", ".join(f"Tensor a{i}" for i in range(len(function.takes)))
    gives = ", ".join(("Tensor",) * len(function.gives))
    library.define(f"{name}({takes}) -> ({gives})")
    library.impl(name, _apart(checked), "CompositeExplicitAutograd")
    fake = _apart(_unlaunched(load(function.source, function.direction)))
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)
    packet = getattr(torch.ops.peftc, name).default
    return packet if len(function.gives) > 1 else lambda *given: (packet(*given),)


def _apart(run: Run) -> Any:
    """Results of which none is an argument's memory, or another's: operators that have
    no schema of their own for that must not."""

    def apart(*tensors: Tensor) -> Any:
        taken = {_memory(t) for t in tensors}
        results = []
        for value in run(*tensors):
            results.append(value.clone() if _memory(value) in taken else value)
            taken.add(_memory(results[-1]))
        return tuple(results) if len(results) > 1 else results[0]

    return apart


def _memory(value: Tensor) -> int:
    address: int = value.untyped_storage()._cdata
    return address


def _unlaunched(run: Any) -> Run:
    """The function with kernels that do nothing, of one form for all numbers of tokens:
    it is traced where the number is not known."""

    def launch(*args: Any, **options: Any) -> None:
        pass

    names = {**run.__globals__, "run": launch, "few": lambda tokens: False}
    return FunctionType(run.__code__, names, run.__name__)
