"""Which output rows of a fused weight feed a value, exactly.

In: a linear's output and a value made from it.  Out: the rows.  The operators between
the two are run on small random tensors (the example sizes of the capture, on the CPU)
and differentiated: a row belongs if its channel has a gradient.  That is exact for any
interleaving, as no operator between has to be understood.  Layers of equal structure
are computed once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from peftc.sites import ops

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        structure = _structure(y, way)
        if structure not in self.known:
            self.known[structure] = _channels(y, way, value)
        return self.known[structure]


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


def _structure(y: fx.Node, way: list[fx.Node]) -> str:
    """The steps as text in which every layer writes the same."""
    numbers = {node: i for i, node in enumerate((y, *way))}

    def spell(node: fx.Node) -> str:
        if node in numbers:
            return f"%{numbers[node]}"
        return f"({ops.shape(node)} {ops.dtype(node)})"

    lines = [str(ops.shape(y))]
    for node in way:
        arguments = fx.map_arg((node.args, node.kwargs), spell)
        lines.append(f"{node.op} {node.target} {arguments}")
    return "\n".join(lines)


def _channels(y: fx.Node, way: list[fx.Node], value: fx.Node) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(ops.shape(y), generator=generator)
    if not way:
        return tuple(range(whole.shape[-1]))
    # The caller may be in inference; gradients are needed here all the same.
    with torch.inference_mode(False), torch.enable_grad():
        whole = whole.clone().requires_grad_()
        values: dict[fx.Node, Any] = {y: whole.clone()}
        for node in way:
            values[node] = _run(node, values, generator)
        result = values[value]
        cotangent = torch.randn(result.shape, generator=generator).to(result.dtype)
        (gradient,) = torch.autograd.grad(result, whole, cotangent)
    reached = gradient.abs().flatten(0, -2).sum(0) > 0
    return tuple(int(i) for i in reached.nonzero().flatten())


def _run(
    node: fx.Node, values: Mapping[fx.Node, Any], generator: torch.Generator
) -> Any:
    def given(other: fx.Node) -> Any:
        return values[other] if other in values else _stand_in(other, generator)

    if node.op == "placeholder":
        return _stand_in(node, generator)
    args, kwargs = fx.map_arg((node.args, node.kwargs), given)
    args, kwargs = pytree.tree_map(_on_cpu, (args, kwargs))
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)
    return node.target(*args, **kwargs)


def _on_cpu(argument: Any) -> Any:
    return torch.device("cpu") if isinstance(argument, torch.device) else argument


def _stand_in(node: fx.Node, generator: torch.Generator) -> Any:
    """A random value like the one a node has, on the CPU."""
    value = node.meta.get("example_value", node.meta.get("val"))

    def like(part: Any) -> Any:
        if isinstance(part, torch.SymInt):
            return ops.size(part)
        if not isinstance(part, torch.Tensor):
            return part
        sizes = tuple(ops.size(s) for s in part.shape)
        if part.dtype.is_floating_point:
            return torch.randn(sizes, generator=generator).to(part.dtype)
        return torch.ones(sizes, dtype=part.dtype)

    return pytree.tree_map(like, value)
