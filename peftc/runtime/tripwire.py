"""No module that holds adapted weights runs unless the compiled forward runs it.

In: the modules of a plan's sites.  Out: a hook on each that lets our own capture pass
and raises otherwise.  Without it, `model.model(...)`, or a `generate()` that calls an
encoder by itself, would compute the base without a word.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peftc.diagnostics.core import fail
from peftc.diagnostics.runtime import CalledDirectly
from peftc.diagnostics.stored import StoredDirectly

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_disabled: ContextVar[tuple[Switch, ...]] = ContextVar("peftc_disabled", default=())
_capturing = threading.local()


class Switch:
    """Whether a compiled model runs its methods; one for each model.

    `off` is for good (merged or removed), `coded` while the methods are merged into
    weights that are kept in codes, `disabled()` for a `with` block in this
    thread or task.
    """

    def __init__(self) -> None:
        self.off = False
        self.coded = False

    @property
    def bypassed(self) -> bool:
        """Whether the base should run here and now."""
        disabled = any(one is self for one in _disabled.get())
        return self.off or self.coded or disabled

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Run the base inside this block."""
        token = _disabled.set((*_disabled.get(), self))
        try:
            yield
        finally:
            _disabled.reset(token)


@contextmanager
def capturing(*, alone: bool = False) -> Iterator[None]:
    """Around the run of a compiled forward: what Dynamo traces in here is ours, and
    with `alone` the base without what stands beside it."""
    before = getattr(_capturing, "depth", 0), getattr(_capturing, "alone", False)
    _capturing.depth, _capturing.alone = before[0] + 1, alone
    try:
        yield
    finally:
        _capturing.depth, _capturing.alone = before


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]  # torch's
def ours() -> bool:
    """Whether the trace under way is ours; asked while tracing, kept as a constant.

    A constant is right: code that Dynamo traced for us is only ever run by us.
    """
    return bool(getattr(_capturing, "depth", 0))


@torch._dynamo.assume_constant_result  # type: ignore[untyped-decorator]  # torch's
def alone() -> bool:
    """Whether the trace under way is of the base alone; a constant as `ours` is."""
    return bool(getattr(_capturing, "alone", False))


@torch._dynamo.disable(  # type: ignore[untyped-decorator]  # torch leaves it so
    reason="peftc: decides at run time whether the base may run"
)
def _refuse_unless_bypassed(switch: Switch, module: str, stored: bool) -> None:
    if not switch.bypassed:
        raise fail(CalledDirectly(module=module))
    if stored and not switch.off:
        raise fail(StoredDirectly(module=module))


@dataclass(frozen=True)
class Tripwire:
    """A forward pre-hook; a class and not a closure, so that models can be pickled and
    a copied model's hooks belong to the copy."""

    switch: Switch
    module: str
    stored: bool = False
    """The module has a weight without values, which no one may read."""

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Pass in our capture and under `disabled()`, raise else."""
        if torch.compiler.is_dynamo_compiling() and ours():
            return
        _refuse_unless_bypassed(self.switch, self.module, self.stored)


def add_tripwires(
    model: nn.Module,
    owners: tuple[str, ...],
    switch: Switch,
    stored: Collection[str] = (),
) -> None:
    """Hook every owner; called before anything else can hook them for us.

    `stored` are those whose weights are kept in codes.
    """
    for owner in owners:
        wire = Tripwire(switch, owner, owner in stored)
        model.get_submodule(owner).register_forward_pre_hook(wire)


def remove_tripwires(model: nn.Module, switch: Switch) -> None:
    """Take back all hooks of this switch, wherever the modules are now."""
    for module in model.modules():
        hooks = module._forward_pre_hooks
        for key, hook in list(hooks.items()):
            if isinstance(hook, Tripwire) and hook.switch is switch:
                del hooks[key]
