"""Which output rows of a fused weight feed a value, exactly.

In: a linear's output and a value made from it.  Out: the rows.  The operators between
the two are run on small random tensors (the example sizes of the capture, on the CPU)
and differentiated: a row belongs if its channel has a gradient.  That is exact for any
interleaving, as no operator between has to be understood.  Layers of equal structure
are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import fx

from peftc.sites import ops
from peftc.sites.execute import Execution, random_values, structure

if TYPE_CHECKING:
    from peftc.sites.flow import Flow
    from peftc.view import Rows


@dataclass(frozen=True)
class RowFinder:
    """Finds rows in one graph."""

    flow: Flow
    known: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def rows(self, y: fx.Node, value: fx.Node) -> tuple[int, ...]:
        """The channels (last axis) of `y` that `value` depends on, increasing.

        Empty if numbers in a tensor choose them: those are not known here.
        """
        between = self.flow.between(y, value)
        way = sorted(between, key=self.flow.order.__getitem__)
        if _is_chosen(y, way):
            return ()
        steps = structure((y,), way)
        if steps not in self.known:
            self.known[steps] = _channels(y, way, value)
        return self.known[steps]


def _is_chosen(y: fx.Node, way: list[fx.Node]) -> bool:
    """Whether a tensor of integers from elsewhere enters."""
    inside = {y, *way}
    entering = (n for node in way for n in ops.inputs(node) if n not in inside)
    tensors = (ops.tensor(n) for n in entering)
    return any(t is not None and _is_integral(t.dtype) for t in tensors)


def _is_integral(dtype: torch.dtype) -> bool:
    is_real = dtype.is_floating_point or dtype.is_complex
    return not is_real and dtype is not torch.bool


def ranges(rows: tuple[int, ...]) -> Rows:
    """Increasing numbers as half-open ranges.

    >>> ranges((0, 1, 2, 8, 9))
    ((0, 3), (8, 10))
    """
    found: list[tuple[int, int]] = []
    for row in rows:
        if found and found[-1][1] == row:
            found[-1] = (found[-1][0], row + 1)
        else:
            found.append((row, row + 1))
    return tuple(found)


def _channels(y: fx.Node, way: list[fx.Node], value: fx.Node) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(ops.shape(y), generator=generator)
    if not way:
        return tuple(range(whole.shape[-1]))
    # The caller may be in inference; gradients are needed here all the same.
    with torch.inference_mode(False), torch.enable_grad():
        whole = whole.clone().requires_grad_()
        execution = Execution(random_values(generator), {y: whole.clone()})
        execution.run(way)
        result = execution.values[value]
        cotangent = torch.randn(result.shape, generator=generator).to(result.dtype)
        (gradient,) = torch.autograd.grad(result, whole, cotangent)
    reached = gradient.abs().flatten(0, -2).sum(0) > 0
    return tuple(int(i) for i in reached.nonzero().flatten())
