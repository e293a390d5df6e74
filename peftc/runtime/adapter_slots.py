"""Slots: several adapters of one plan in one model, of which one is active.

In: the handle of a compiled model.  Out: named sets of added tensors.  The active one's
are in the modules, the others' on a shelf beside them; to activate another exchanges
the tensors themselves.  Graphs are guarded by what their inputs are like, not by which
they are, so nothing is captured anew; and an optimizer keeps the tensors it was given.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.runtime import WrongState
from peftc.diagnostics.slots import SlotTaken, UnknownSlot
from peftc.runtime import storing
from peftc.runtime.adapters import first_values, tensor_at
from peftc.runtime.names import tensor_path
from peftc.runtime.samples import Samples, check_samples, chosen, current
from peftc.runtime.state import read_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.plan.types import Plan, Storage
    from peftc.runtime.handle import Handle

Tensors: TypeAlias = "dict[str, torch.Tensor]"
"""An adapter's tensors by path; a shared one once, as in a file."""

DEFAULT = "default"
"""The slot of the adapter that a model is compiled with."""


class Slots:
    """The adapters of a compiled model by name: `model.peftc.slots`."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._active = DEFAULT
        self._shelf: dict[str, Tensors] = {}
        """Those that are not active."""
        self._order = [DEFAULT]
        self._any_base: dict[str, bool] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The slots, in the order they were added."""
        return tuple(self._order)

    @property
    def active(self) -> str:
        """The slot that runs, is trained, and is in the state dict."""
        return self._active

    def add(
        self, name: str, folder: str | Path | None = None, *, any_base: bool = False
    ) -> None:
        """Make a slot: with the plan's initial values, or the adapter in a folder.

        Raises:
            PeftcError: PEFT651, or as `load`; nothing is changed then.
        """
        self._handle.require_apart()
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
        self._require_slot(name)
        if name == self._active:
            return
        self._any_base[self._active] = self._handle.any_base
        self._shelf[self._active] = self._exchange(self._shelf.pop(name))
        self._active = name
        self._handle.any_base = self._any_base[name]

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
        check_samples(self._handle.plan)
        used = tuple(dict.fromkeys(name for name in names if name is not None))
        numbers = tuple(-1 if n is None else used.index(n) for n in names)
        if not used:
            with self._handle.disabled():
                yield
            return
        values = tuple(self._everywhere(name) for name in used)
        with chosen(Samples(self, numbers, values)):
            yield

    @property
    def samples(self) -> Samples | None:
        """What `rows` gave to the samples of a batch, here and now."""
        return current(self)

    def remove(self, name: str) -> None:
        """Forget an adapter that is not active.

        Raises:
            PeftcError: PEFT650, or PEFT631 if it is active.
        """
        self._require_slot(name)
        if name == self._active:
            raise fail(
                WrongState(
                    what=f"slot `{name}` is active", hint="activate another one first"
                )
            )
        del self._shelf[name]
        self._order.remove(name)

    def save(self, name: str, folder: str | Path) -> Path:
        """Write the adapter in a slot as `model.peftc.save` does; returns its path."""
        with self.using(name):
            return self._handle.save(folder)

    def tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a slot by path, a shared one once.

        Raises:
            PeftcError: PEFT650.
        """
        self._require_slot(name)
        if name != self._active:
            return self._shelf[name]
        model = self._handle.model
        return {path: tensor_at(model, path) for path in places(self._handle.plan)}

    def _everywhere(self, name: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a slot by every path they are at."""
        tensors, own = self.tensors(name), self.tensors(self._active)
        for path, tensor in tensors.items():
            _follow(tensor, own[path])
        found = places(self._handle.plan).items()
        return {one: tensors[path] for path, every in found for one in every}

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


def _is_parameter(tensor: torch.Tensor) -> bool:
    return isinstance(tensor, nn.Parameter)


def _follow(tensor: torch.Tensor, model: torch.Tensor) -> None:
    """Move a tensor to where the model went meanwhile; it stays the same object."""
    if (tensor.device, tensor.dtype) != (model.device, model.dtype):
        tensor.data = tensor.data.to(model.device, model.dtype)
        if tensor.grad is not None:
            tensor.grad.data = tensor.grad.data.to(model.device, model.dtype)
