"""Slots: several adapters of one plan in one model, of which one is active.

In: the handle of a compiled model.  Out: named sets of added tensors.  The active one's
are in the modules, the others' on a shelf beside them; to activate another exchanges
the tensors themselves.  Graphs are guarded by what their inputs are like, not by which
they are, so nothing is captured anew; and an optimizer keeps the tensors it was given.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from peftc.diagnostics.core import PeftcError, fail, suggestion
from peftc.diagnostics.runtime import WrongState
from peftc.diagnostics.slots import (
    NotBySample,
    NotByWeight,
    NotOneAdapter,
    SlotTaken,
    UnknownSlot,
)
from peftc.runtime import storing
from peftc.runtime.adapters import first_values, tensor_at
from peftc.runtime.names import tensor_path
from peftc.runtime.several import (
    SHARED,
    UNWEIGHTED,
    ByWeight,
    OfSamples,
    check_kinds,
    chosen,
    current,
)
from peftc.runtime.state import read_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.plan.types import Plan, Storage
    from peftc.runtime.handle import Handle
    from peftc.runtime.several import Several, Values

Tensors: TypeAlias = "dict[str, torch.Tensor]"
"""An adapter's tensors by path; a shared one once, as in a file."""

DEFAULT = "default"
"""The slot of the adapter that a model is compiled with."""


class Slots:
    """The adapters of a compiled model by name: `model.peftc.slots`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._active = DEFAULT
        self._resident = DEFAULT
        """Whose tensors are in the modules: the active one, or the last that was."""
        self._shelf: dict[str, Tensors] = {}
        """Those that are not in the modules."""
        self._order = [DEFAULT]
        self._any_base: dict[str, bool] = {}
        self._weights: dict[str, dict[str, float]] = {}
        """Of each combination the weights of its members."""
        self._running: ByWeight | None = None
        """What the active combination runs as."""

    @property
    def names(self) -> tuple[str, ...]:
        """The slots, in the order they were added."""
        return tuple(self._order)

    @property
    def active(self) -> str:
        """The slot that runs.

        An adapter is trained and is in the state dict; of a combination the adapter
        that was active before is.
        """
        return self._active

    def add(
        self, name: str, folder: str | Path | None = None, *, any_base: bool = False
    ) -> None:
        """Make a slot: with the plan's initial values, or the adapter in a folder.

        Raises:
            PeftcError: PEFT651, or as `load`; nothing is changed then.
        """
        self._handle.require_apart()
        self._handle.require_whole()
        if name in self._order:
            raise fail(SlotTaken(slot=name))
        if folder is None:
            values = first_values(self._handle.model, self._handle.plan)
        else:
            adapter = read_adapter(Path(folder))
            storing.check_adapter(self._handle, adapter, any_base=any_base)
            values, any_base = adapter.tensors, any_base or adapter.any_base
        self._shelf[name] = self._made(values)
        self._any_base[name] = any_base and folder is not None
        self._order.append(name)

    def activate(self, name: str) -> None:
        """Let the model run, train and save the adapter in a slot.

        Its tensors follow the model to its device and types.

        Raises:
            PeftcError: PEFT650, or PEFT631 while merged.
        """
        self._handle.require_apart()
        self._handle.require_whole()
        self._require_slot(name)
        if name in self._shelf:
            self._any_base[self._resident] = self._handle.any_base
            self._shelf[self._resident] = self._exchange(self._shelf.pop(name))
            self._resident = name
            self._handle.any_base = self._any_base[name]
        self._active, self._running = name, None

    @contextmanager
    def using(self, name: str | None) -> Iterator[None]:
        """Activate a slot in a `with` block; None is the base alone."""
        if name is None:
            with self._handle.disabled():
                yield
            return
        before = self._active
        self.activate(name)
        try:
            yield
        finally:
            self.activate(before)

    @contextmanager
    def rows(self, names: Sequence[str | None]) -> Iterator[None]:
        """Give each row of a batch an adapter of its own in a `with` block.

        All run in one pass; a row whose name is None runs the base.  A batch that is a
        multiple, as `generate()` makes it for beams, has equal ones side by side.  For
        this thread or task only.

        Raises:
            PeftcError: PEFT650, PEFT653 with every reason, or PEFT631 while merged.
        """
        self._handle.require_apart()
        self._handle.require_whole()
        check_kinds(self._handle.plan, SHARED, NotBySample)
        used = tuple(dict.fromkeys(name for name in names if name is not None))
        numbers = tuple(-1 if n is None else used.index(n) for n in names)
        if not used:
            with self._handle.disabled():
                yield
            return
        with chosen(OfSamples(self, self._values(used), numbers=numbers)):
            yield

    def combine(self, name: str, weights: Mapping[str, float]) -> None:
        """Make a slot that runs the base and the weighted effects of others.

        An effect is what an adapter changes of a value where it acts.  A combination is
        made anew with other weights or slots under the same name; nothing is captured
        for that.

        Raises:
            PeftcError: PEFT650, PEFT651, or PEFT654 with every reason.
        """
        self._handle.require_apart()
        self._handle.require_whole()
        check_kinds(self._handle.plan, UNWEIGHTED, NotByWeight)
        if name in self._order and name not in self._weights:
            raise fail(SlotTaken(slot=name))
        for one in weights:
            self._require_adapter(one)
        if not weights:
            raise fail(WrongState(what="a combination needs a slot"))
        if name not in self._order:
            self._order.append(name)
        self._weights[name] = dict(weights)
        self._running = None

    @property
    def several(self) -> Several | None:
        """The adapters that run at once, if several do, here and now."""
        return current(self) or self._combined()

    def check_one(self) -> None:
        """Raise `PeftcError` (PEFT655) if what runs is no adapter of the plan."""
        self._require_adapter(self._active)

    def _combined(self) -> ByWeight | None:
        """What the active combination runs as; made anew where the model moved."""
        if self._active not in self._weights:
            return None
        if self._running is None or not self._is_here(self._running):
            weights = self._weights[self._active]
            values = self._values(tuple(weights))
            self._running = ByWeight(self, values, weights=tuple(weights.values()))
        return self._running

    def _is_here(self, running: ByWeight) -> bool:
        model = self._handle.model
        return all(
            (own.device, own.dtype) == (value.device, value.dtype)
            for path, own in islice(running.values[0].items(), 1)
            for value in (tensor_at(model, path),)
        )

    def remove(self, name: str) -> None:
        """Forget an adapter that is not active.

        Raises:
            PeftcError: PEFT650, or PEFT631 if it is active or part of a combination.
        """
        self._require_slot(name)
        if name == self._active:
            raise _in_use(f"slot `{name}` is active", "activate another one first")
        for other, weights in self._weights.items():
            if name in weights:
                raise _in_use(
                    f"slot `{name}` is part of `{other}`", "remove that first"
                )
        if name == self._resident:
            raise _in_use(
                f"the tensors of slot `{name}` are in the model",
                "activate another adapter first",
            )
        self._shelf.pop(name, None)
        self._weights.pop(name, None)
        self._order.remove(name)

    def save(self, name: str, folder: str | Path) -> Path:
        """Write the adapter in a slot as `model.peftc.save` does; returns its path."""
        with self.using(name):
            return self._handle.save(folder)

    def tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a slot by path, a shared one once.

        Raises:
            PeftcError: PEFT650, or PEFT655 for a combination.
        """
        self._require_adapter(name)
        if name != self._resident:
            return self._shelf[name]
        model = self._handle.model
        return {path: tensor_at(model, path) for path in places(self._handle.plan)}

    def _values(self, names: Sequence[str]) -> Values:
        """Of each slot the tensors by every path they are at."""
        return tuple(map(self._everywhere, names))

    def _everywhere(self, name: str) -> Mapping[str, torch.Tensor]:
        tensors, own = self.tensors(name), self.tensors(self._resident)
        for path, tensor in tensors.items():
            _follow(tensor, own[path])
        found = places(self._handle.plan).items()
        return {one: tensors[path] for path, every in found for one in every}

    def _require_adapter(self, name: str) -> None:
        self._require_slot(name)
        if name in self._weights:
            members = " and ".join(f"`{one}`" for one in self._weights[name])
            raise fail(NotOneAdapter(slot=name, members=members))

    def _require_slot(self, name: str) -> None:
        if name not in self._order:
            known = ", ".join(f"`{one}`" for one in self._order)
            hint = suggestion(name, self._order)
            raise fail(UnknownSlot(slot=name, known=known, hint=hint))

    def _made(self, values: Mapping[str, torch.Tensor]) -> Tensors:
        """New tensors of these values, like those in the model."""
        made: Tensors = {}
        for path in places(self._handle.plan):
            like = tensor_at(self._handle.model, path)
            value = values[path].to(like, copy=True)
            made[path] = nn.Parameter(value) if _is_parameter(like) else value
        return made

    def _exchange(self, new: Tensors) -> Tensors:
        """Put an adapter into the modules; returns the one that was there."""
        model, old = self._handle.model, {}
        for path, everywhere in places(self._handle.plan).items():
            old[path] = tensor_at(model, path)
            _follow(new[path], old[path])
            for one in everywhere:
                owner, _, leaf = one.rpartition(".")
                setattr(model.get_submodule(owner), leaf, new[path])
        return old

    def __getstate__(self) -> dict[str, Any]:
        """What runs is made anew of a copy's own tensors."""
        return {**vars(self), "_running": None}

    def __repr__(self) -> str:
        marked = (f"[{n}]" if n == self._active else n for n in self._order)
        return f"<slots: {', '.join(marked)}>"


def places(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Where each tensor of an adapter is in the model, by its path in a file."""
    found: dict[Storage, list[str]] = {}
    for rewrite in plan.rewrites:
        for tensor in rewrite.tensors:
            if not tensor.drawn:
                path = tensor_path(rewrite.site, tensor)
                found.setdefault(rewrite.storage(tensor), []).append(path)
    return {paths[0]: tuple(paths) for paths in found.values()}


def _in_use(what: str, hint: str) -> PeftcError:
    return fail(WrongState(what=what, hint=hint))


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _follow(tensor: torch.Tensor, model: torch.Tensor) -> None:
    """Move a tensor to where the model went meanwhile; it stays the same object."""
    if (tensor.device, tensor.dtype) != (model.device, model.dtype):
        tensor.data = tensor.data.to(model.device, model.dtype)
        if tensor.grad is not None:
            tensor.grad.data = tensor.grad.data.to(model.device, model.dtype)
