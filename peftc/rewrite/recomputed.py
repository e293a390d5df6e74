"""A planned step on inputs that are computed anew in the backward.

In: how inputs are made from what lives until then anyway (an activation from what a
norm reads, a weight from its codes), and a `Together`.  Out: a `Recomputed`, called
with what these are made from and the step's other inputs.  What is made is not kept,
nor is what torch would keep of its making.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from peftc.rewrite.step import Together


LEAST = 1 << 17
"""Elements of an activation below which it is kept all the same: to make it again takes
a call of autograd within autograd, a tenth of a step of 32 tokens by 512 features."""


@dataclass(frozen=True, eq=False)
class Made:
    """The step's input at `place`, which `run` computes from `count` arguments."""

    place: int
    run: Callable[..., Tensor]
    count: int


@dataclass(frozen=True, eq=False)
class Recomputed:
    """A function that gives a tuple: the step's results, and x if `gives`.

    It takes the arguments of each that is made, and then the inputs that are not.
    """

    step: Together
    made: tuple[Made, ...]
    gives: bool = False

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return self.step.__name__

    @cached_property
    def count(self) -> int:
        """How many arguments are what inputs are made from."""
        return sum(one.count for one in self.made)

    @cached_property
    def rest(self) -> tuple[int, ...]:
        """The places of the inputs that are not made."""
        made = {one.place for one in self.made}
        return tuple(i for i in range(len(self.step.inputs)) if i not in made)

    def __call__(self, *given: Any) -> tuple[Tensor, ...]:
        """The values that the program replaces."""
        if not torch.is_grad_enabled():
            return self._without_gradients(given)
        if self._is_small(given):
            return self._kept(given)
        found: tuple[Tensor, ...] = _Step.apply(self, *given)  # type: ignore[no-untyped-call]
        return found

    @cached_property
    def _x(self) -> int | None:
        """Which of what is made is the activation."""
        places = [one.place for one in self.made]
        return places.index(self.step.first) if self.step.first in places else None

    def _is_small(self, given: Sequence[Any]) -> bool:
        """Whether the activation is made of few numbers; none that a graph leaves
        open."""
        if self._x is None:
            return False
        own = self.chunks(given)[self._x]
        sizes = [value.numel() for value in own if isinstance(value, torch.Tensor)]
        return all(isinstance(size, int) and size < LEAST for size in sizes)

    def _without_gradients(self, given: Sequence[Any]) -> tuple[Tensor, ...]:
        """The same where nothing is kept for a backward."""
        known: dict[int, Any] = dict(zip(self.rest, given[self.count :], strict=True))
        pairs = zip(self.made, self.make(given), strict=True)
        known |= {one.place: value for one, value in pairs}
        found = self.step(*(known[i] for i in range(len(self.step.inputs))))
        results = found if isinstance(found, tuple) else (found,)
        return (*results, *((known[self.step.first],) * self.gives))

    def _kept(self, given: Sequence[Any]) -> tuple[Tensor, ...]:
        """The same with an activation that torch keeps."""
        assert self._x is not None
        chunks, rest = self.chunks(given), given[self.count :]
        x = self.made[self._x].run(*chunks[self._x])
        others = [v for i, own in enumerate(chunks) if i != self._x for v in own]
        place = sum(i < self.step.first for i in self.rest)
        found = self._less(*others, *rest[:place], x, *rest[place:])
        results = found if isinstance(found, tuple) else (found,)
        return (*results, *((x,) * self.gives))

    @cached_property
    def _less(self) -> Callable[..., Any]:
        """The step to which the activation is given."""
        others = tuple(one for i, one in enumerate(self.made) if i != self._x)
        return Recomputed(self.step, others) if others else self.step

    def chunks(self, given: Sequence[Any]) -> list[Sequence[Any]]:
        """The arguments of each that is made."""
        return [given[own] for own in self._own]

    @cached_property
    def _own(self) -> list[slice]:
        """Where the arguments of each that is made are."""
        ends = list(accumulate(one.count for one in self.made))
        pairs = zip(self.made, ends, strict=True)
        return [slice(end - one.count, end) for one, end in pairs]

    def make(self, given: Sequence[Any]) -> list[Tensor]:
        """All that is made."""
        pairs = zip(self.made, self.chunks(given), strict=True)
        return [one.run(*args) for one, args in pairs]

    def inputs(
        self, values: Sequence[Tensor | None], rest: Sequence[Tensor | None]
    ) -> list[Tensor | None]:
        """What the step reads."""
        known = dict(zip(self.rest, rest, strict=True))
        known |= {m.place: v for m, v in zip(self.made, values, strict=True)}
        pairs = enumerate(self.step.active)
        return [_flat(known[i]) if active else known[i] for i, active in pairs]

    def held(
        self, rest: Sequence[Tensor], needs: Sequence[bool]
    ) -> list[Tensor | None]:
        """What is saved of the inputs that are not made."""
        saves, every = self.step.saves, self.step.saves_all(self.needed(needs))
        pairs = zip(self.rest, rest, strict=True)
        return [value if saves[i] or every else None for i, value in pairs]

    def needed(self, needs: Sequence[bool]) -> tuple[bool, ...]:
        """Of which inputs gradients are wanted: of what is made, if of what it is made
        from."""
        known = dict(zip(self.rest, needs[self.count :], strict=True))
        for one, own in zip(self.made, self.chunks(needs), strict=True):
            known[one.place] = any(own)
        return tuple(known[i] for i in range(len(self.step.inputs)))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Recomputed, *given: Any) -> tuple[Tensor, ...]:
        before, rest = given[: whole.count], given[whole.count :]
        made = whole.make(before)
        x = _x(whole, made, rest)
        values = whole.step.run(*whole.inputs(made, rest))
        count = len(whole.step.source.results)
        ctx.whole = whole
        ctx.numbers = [None if isinstance(v, torch.Tensor) else v for v in before]
        tensors = [v if isinstance(v, torch.Tensor) else None for v in before]
        held = whole.held(rest, ctx.needs_input_grad[1:])
        ctx.save_for_backward(*tensors, *held, *values[count:])
        lead = x.shape[:-1]
        results = (value.reshape(*lead, value.shape[-1]) for value in values[:count])
        return (*results, *((x,) * whole.gives))

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> Any:
        whole: Recomputed = ctx.whole
        count, step, saved = whole.count, whole.step, ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        last = count + len(whole.rest)
        before = _with_numbers(saved[:count], ctx.numbers)
        needed = whole.needed(needs)
        anew = _anew(whole, before, needs[:count], step.rereads(needed))
        values = [_read(value) for value, _ in anew]
        inputs = whole.inputs(values, saved[count:last])
        results = adjoints[: len(step.source.results)]
        flat = [dy.reshape(-1, dy.shape[-1]) for dy in results]
        slopes = step.back(needed, inputs, saved[last:], flat)
        own = _through(whole, anew, slopes, adjoints[len(results) :])
        lead = results[0].shape[:-1]
        return None, *own, *(_shaped(whole, slopes, i, lead) for i in whole.rest)


def _flat(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.reshape(-1, value.shape[-1])


def _shaped(
    whole: Recomputed, slopes: dict[int, Tensor], place: int, lead: torch.Size
) -> Tensor | None:
    """The gradient of an input that is not made, with the token axes that it has."""
    slope = slopes.get(place)
    if slope is None or not whole.step.active[place]:
        return slope
    return slope.reshape(*lead, slope.shape[-1])


def _x(whole: Recomputed, made: Sequence[Tensor], rest: Sequence[Tensor]) -> Tensor:
    """The activation, as it is made or given."""
    first = whole.step.first
    for one, value in zip(whole.made, made, strict=True):
        if one.place == first:
            return value
    return rest[whole.rest.index(first)]


def _with_numbers(tensors: Sequence[Any], numbers: Sequence[Any]) -> list[Any]:
    pairs = zip(tensors, numbers, strict=True)
    return [number if tensor is None else tensor for tensor, number in pairs]


def _anew(
    whole: Recomputed, before: list[Any], needs: Sequence[bool], reads: frozenset[int]
) -> list[tuple[Tensor | None, dict[int, Tensor]]]:
    """Each that is made once more, if it is read or passes a gradient on, and those of
    what it is made from whose gradients are wanted, by their number among these."""
    if not torch.is_grad_enabled():
        before = [v.detach() if isinstance(v, torch.Tensor) else v for v in before]
        for value, need in zip(before, needs, strict=True):
            if need:
                value.requires_grad_()
    found: list[tuple[Tensor | None, dict[int, Tensor]]] = []
    with torch.enable_grad():
        chunks = zip(whole.made, whole.chunks(before), whole.chunks(needs), strict=True)
        for one, args, wanted in chunks:
            is_read = one.place in reads or any(wanted)
            leaves = {i: args[i] for i, need in enumerate(wanted) if need}
            found.append((one.run(*args) if is_read else None, leaves))
    return found


def _read(value: Tensor | None) -> Tensor | None:
    """What is made, as the backward reads it."""
    return value if value is None or torch.is_grad_enabled() else value.detach()


def _through(
    whole: Recomputed,
    anew: Sequence[tuple[Tensor | None, dict[int, Tensor]]],
    found: dict[int, Tensor],
    others: Sequence[Tensor],
) -> list[Tensor | None]:
    """The gradients of what inputs are made from; `others` is what else reads x
    gives."""
    slopes: list[Tensor | None] = []
    for one, (value, leaves) in zip(whole.made, anew, strict=True):
        beside = others if one.place == whole.step.first else ()
        given = [s for s in (found.pop(one.place, None), *beside) if s is not None]
        own = _slopes(value, leaves, given)
        slopes += [own.get(i) for i in range(one.count)]
    return slopes


def _slopes(
    value: Tensor | None, leaves: dict[int, Tensor], given: Sequence[Tensor]
) -> dict[int, Tensor]:
    if value is None or not leaves or not given:
        return {}
    first, *others = (slope.reshape(value.shape) for slope in given)
    found = torch.autograd.grad(
        value,
        list(leaves.values()),
        sum(others, first),
        allow_unused=True,
        create_graph=torch.is_grad_enabled(),
    )
    return dict(zip(leaves, found, strict=True))
