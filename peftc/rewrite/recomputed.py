"""A planned step on an activation that is computed anew in the backward.

In: how the activation is made from what lives until then anyway, and a `Together`.
Out: a `Recomputed`, called with what the activation is made from and the step's other
inputs.  The activation itself is not kept, nor is what torch would keep of its making.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from peftc.rewrite.step import Together


@dataclass(frozen=True, eq=False)
class Recomputed:
    """A function that gives a tuple: the step's results, and x if `gives`.

    `make` computes x from the first `count` arguments.
    """

    make: Callable[..., Tensor]
    count: int
    step: Together
    gives: bool

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return self.step.__name__

    def __call__(self, *given: Any) -> tuple[Tensor, ...]:
        """The values that the program replaces."""
        found: tuple[Tensor, ...] = _Step.apply(self, *given)  # type: ignore[no-untyped-call]
        return found

    def inputs(self, x: Tensor, rest: Sequence[Tensor]) -> list[Tensor]:
        """What the step reads."""
        found, first = list(rest), self.step.first
        found.insert(first, x.reshape(-1, x.shape[-1]))
        return found


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Recomputed, *given: Any) -> tuple[Tensor, ...]:
        before, rest = given[: whole.count], given[whole.count :]
        x = whole.make(*before)
        values = whole.step.run(*whole.inputs(x, rest))
        count = len(whole.step.source.results)
        ctx.whole = whole
        ctx.numbers = [None if isinstance(v, torch.Tensor) else v for v in before]
        tensors = [v if isinstance(v, torch.Tensor) else None for v in before]
        ctx.save_for_backward(*tensors, *rest, *values[count:])
        lead = x.shape[:-1]
        results = (value.reshape(*lead, value.shape[-1]) for value in values[:count])
        return (*results, *((x,) * whole.gives))

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> Any:
        whole: Recomputed = ctx.whole
        count, step, saved = whole.count, whole.step, ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        last = count + len(step.inputs) - 1
        before = _with_numbers(saved[:count], ctx.numbers)
        x, leaves = _anew(whole, before, needs[:count])
        inputs = whole.inputs(
            x if torch.is_grad_enabled() else x.detach(), saved[count:last]
        )
        needed = list(needs[count:])
        needed.insert(step.first, bool(leaves))
        results = adjoints[: len(step.source.results)]
        flat = [dy.reshape(-1, dy.shape[-1]) for dy in results]
        found = step.back(tuple(needed), inputs, saved[last:], flat)
        slope = found.pop(step.first, None)
        own = _through(x, leaves, slope, adjoints[len(results) :])
        places = (i for i in range(len(step.inputs)) if i != step.first)
        return None, *map(own.get, range(count)), *map(found.get, places)


def _with_numbers(tensors: Sequence[Any], numbers: Sequence[Any]) -> list[Any]:
    pairs = zip(tensors, numbers, strict=True)
    return [number if tensor is None else tensor for tensor, number in pairs]


def _anew(
    whole: Recomputed, before: list[Any], needs: Sequence[bool]
) -> tuple[Tensor, dict[int, Tensor]]:
    """x once more, and those of what it is made from whose gradients are wanted."""
    if not torch.is_grad_enabled():
        before = [v.detach() if isinstance(v, torch.Tensor) else v for v in before]
        for value, need in zip(before, needs, strict=True):
            if need:
                value.requires_grad_()
    with torch.enable_grad():
        x = whole.make(*before)
    return x, {i: before[i] for i, need in enumerate(needs) if need}


def _through(
    x: Tensor,
    leaves: dict[int, Tensor],
    slope: Tensor | None,
    others: Sequence[Tensor],
) -> dict[int, Tensor | None]:
    """The gradients of what x is made from; `others` is what else reads x gives."""
    slopes = [s.reshape(x.shape) for s in (slope, *others) if s is not None]
    if not leaves or not slopes:
        return {}
    total = slopes[0] if len(slopes) == 1 else slopes[0] + slopes[1]
    found = torch.autograd.grad(
        x,
        list(leaves.values()),
        total,
        allow_unused=True,
        create_graph=torch.is_grad_enabled(),
    )
    return dict(zip(leaves, found, strict=True))
