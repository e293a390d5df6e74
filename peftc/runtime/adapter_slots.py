"""Slots: several adapters of one plan in one model, of which one is active.

In: the handle of a compiled model.  Out: named sets of added tensors.  The active one's
are in the modules, the others' on a shelf beside them; to activate another exchanges
the tensors themselves.  Graphs are guarded by what their inputs are like, not by which
they are, so nothing is captured anew; and an optimizer keeps the tensors it was given.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
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
from peftc.runtime import adapters, storing
from peftc.runtime.adapters import first_values, tensor_at
from peftc.runtime.names import tensor_path
from peftc.runtime.once import run_once
from peftc.runtime.parameters import places
from peftc.runtime.several import (
    SHARED,
    UNWEIGHTED,
    ByWeight,
    OfSamples,
    check_kinds,
    chosen,
    current,
)
from peftc.runtime.stacking import (
    InOrder,
    Member,
    follow,
    ordered,
    own_member,
    tensors_of,
)
from peftc.runtime.state import read_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.plan.stacking import Stacked
    from peftc.plan.types import Plan
    from peftc.runtime.handle import Handle
    from peftc.runtime.several import Several, Values

Tensors: TypeAlias = "dict[str, torch.Tensor]"
"""An adapter's tensors by path; a shared one once, as in a file."""

DEFAULT = "default"
"""The slot of the adapter that a model is compiled with."""


@dataclass(frozen=True)
class Stack:
    """Slots one after the other, and their joined plan."""

    members: tuple[str, ...]
    joined: Stacked


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
        self._stacks: dict[str, Stack] = {}
        """What runs by a plan that is not the model's own."""
        self._own: dict[str, Member] = {}
        """Adapters with a plan of their own."""
        self._leads = False
        """Samples are known to be the first axis of what the model computes."""
        self._running: tuple[object, Several] | None = None
        """What the active one runs as if it is not in the modules; and for where."""

    @property
    def names(self) -> tuple[str, ...]:
        """The slots, in the order they were added."""
        return tuple(self._order)

    @property
    def active(self) -> str:
        """The slot that runs.

        An adapter of the model's plan is trained and is in the state dict; while what
        others make up is active, the one that was active before is.
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
        self._require_free(name)
        if folder is None:
            values = first_values(self._handle.model, self._handle.plan)
        else:
            adapter = read_adapter(Path(folder))
            storing.check_adapter(self._handle, adapter, any_base=any_base)
            values, any_base = adapter.tensors, any_base or adapter.any_base
        self._shelf[name] = self._made(values)
        self._any_base[name] = any_base and folder is not None
        self._order.append(name)

    def add_other(self, name: str, folder: str | Path) -> None:
        """Make a slot with an adapter that was made by another spec on the same base.

        It runs by its own plan, and in stacks; its tensors are not in the modules.

        Raises:
            PeftcError: PEFT651, PEFT656, or as `load`; nothing is changed then.
        """
        handle = self._handle
        handle.require_apart()
        handle.require_whole()
        self._require_free(name)
        adapter = read_adapter(Path(folder))
        plan, base = adapters.plan_of(adapter), adapters.base_of(handle)
        adapters.check(adapter, handle.model, plan, any_base=False, base=base)
        joined = ordered((plan,), handle.model, handle.entries)
        self._own[name] = own_member(adapter, plan, handle.model)
        self._stacks[name] = Stack((name,), joined)
        self._order.append(name)

    def stack(self, name: str, members: Sequence[str]) -> None:
        """Make a slot that runs others one after the other.

        At each site it is as if one spec had them all, in this order: see "Several
        methods at one site" in docs/language.md.

        Raises:
            PeftcError: PEFT650, PEFT651, PEFT655, or PEFT656 with the reason.
        """
        self._handle.require_apart()
        self._handle.require_whole()
        self._require_free(name)
        plans = [self._member(one).plan for one in members]
        if not plans:
            raise fail(WrongState(what="a stack needs a slot"))
        joined = ordered(plans, self._handle.model, self._handle.entries)
        self._stacks[name] = Stack(tuple(members), joined)
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
        if name not in self._weights:
            self._require_free(name)
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
        return current(self) or self._made_up()

    def check_lead(self, several: Several, batch: torch.Tensor) -> None:
        """Refuse samples that do not lead, where sizes do not tell them from tokens.

        Of as many tokens as samples, either may be the first axis of what a model
        computes; made-up inputs of other sizes tell which, once for a model.

        Raises:
            PeftcError: PEFT458.
        """
        equal = batch.dim() > 1 and batch.shape[0] == batch.shape[1] > 1
        if self._leads or not (equal and isinstance(several, OfSamples)):
            return
        self._leads = True
        try:
            with chosen(OfSamples(self, several.values, numbers=(0,))):
                run_once(self._handle.model)
        except PeftcError:
            self._leads = False
            raise

    def check_one(self) -> None:
        """Raise `PeftcError` (PEFT655) if what runs is no adapter of the plan."""
        self._require_adapter(self._active)

    def _made_up(self) -> Several | None:
        """What the active slot runs as, if others make it up; anew where the model
        moved."""
        if self._active not in {*self._weights, *self._stacks}:
            return None
        first = next(self._handle.model.parameters())
        here = (first.device, first.dtype)
        if self._running is None or self._running[0] != here:
            self._running = here, self._several(self._active)
        return self._running[1]

    def _several(self, name: str) -> Several:
        if name in self._weights:
            weights = self._weights[name]
            values = self._values(tuple(weights))
            return ByWeight(self, values, weights=tuple(weights.values()))
        stack = self._stacks[name]
        members = tuple(map(self._member, stack.members))
        values = (tensors_of(stack.joined, members, self._handle.model),)
        return InOrder(self, values, joined=stack.joined.plan)

    def _member(self, name: str) -> Member:
        """An adapter with its plan, all its tensors where the model is."""
        model, plan = self._handle.model, self._handle.plan
        if name in self._own:
            return follow(self._own[name], model)
        (tensors,) = self._values((name,))
        return Member(plan, {**tensors, **drawn_in(plan, model)})

    def remove(self, name: str) -> None:
        """Forget an adapter that is not active.

        Raises:
            PeftcError: PEFT650, or PEFT631 if it is active or part of a combination.
        """
        self._require_slot(name)
        if name == self._active:
            raise _in_use(f"slot `{name}` is active", "activate another one first")
        for other, members in self._made_of().items():
            if name in members and name != other:
                raise _in_use(
                    f"slot `{name}` is part of `{other}`", "remove that first"
                )
        if name == self._resident:
            raise _in_use(
                f"the tensors of slot `{name}` are in the model",
                "activate another adapter first",
            )
        kinds: tuple[dict[str, Any], ...] = (
            self._shelf,
            self._weights,
            self._stacks,
            self._own,
        )
        for kind in kinds:
            kind.pop(name, None)
        self._order.remove(name)

    def save(self, name: str, folder: str | Path) -> Path:
        """Write the adapter in a slot as `model.peftc.save` does; returns its path."""
        with self.using(name):
            return self._handle.save(folder)

    def tensors(self, name: str) -> Mapping[str, torch.Tensor]:
        """The tensors of a slot by path, a shared one once.

        Raises:
            PeftcError: PEFT650, or PEFT655 for what others make up.
        """
        if name in self._own:
            member = self._own[name]
            return {path: member.tensors[path] for path in places(member.plan)}
        self._require_adapter(name)
        if name != self._resident:
            return self._shelf[name]
        model = self._handle.model
        return {path: tensor_at(model, path) for path in places(self._handle.plan)}

    def shelved(self) -> Iterator[torch.Tensor]:
        """All tensors that are not in the modules."""
        own = (member.tensors for member in self._own.values())
        for tensors in (*self._shelf.values(), *own):
            yield from tensors.values()

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
        if name in self._own:
            raise fail(NotOneAdapter(slot=name, why="has a plan of its own"))
        if members := self._made_of().get(name):
            every = " and ".join(f"`{one}`" for one in members)
            raise fail(NotOneAdapter(slot=name, why=f"is made up of {every}"))

    def _made_of(self) -> Mapping[str, tuple[str, ...]]:
        """The members of each slot that others make up."""
        by_weight = {name: tuple(weights) for name, weights in self._weights.items()}
        return by_weight | {name: one.members for name, one in self._stacks.items()}

    def _require_free(self, name: str) -> None:
        if name in self._order:
            raise fail(SlotTaken(slot=name))

    def _require_slot(self, name: str) -> None:
        if name not in self._order:
            known = ", ".join(f"`{one}`" for one in self._order)
            hint = suggestion(name, self._order)
            raise fail(UnknownSlot(slot=name, known=known, hint=hint))

    @torch.inference_mode(mode=False)  # they are to be trained, whoever adds them
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


def drawn_in(plan: Plan, model: nn.Module) -> Mapping[str, torch.Tensor]:
    """The random tensors of a plan in the modules, by every path they are at."""
    return {
        path: tensor_at(model, path)
        for rewrite in plan.rewrites
        for tensor in rewrite.tensors
        if tensor.drawn
        for path in (tensor_path(rewrite.site, tensor),)
    }


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
