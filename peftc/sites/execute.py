"""Running a piece of a captured graph on small made-up tensors, on the CPU.

In: nodes of a graph and values for some of them.  Out: what the operators between give.
Sizes are those of the capture; values that enter from elsewhere are made up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from peftc.sites import ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True)
class Execution:
    """Values of nodes; `make_up` gives a tensor for a node that is not run."""

    make_up: Callable[[tuple[int, ...], torch.dtype], torch.Tensor]
    values: dict[fx.Node, Any] = field(default_factory=dict)

    def run(self, nodes: Iterable[fx.Node]) -> None:
        """Run nodes in the order given."""
        for node in nodes:
            self.values[node] = self._run(node)

    def _run(self, node: fx.Node) -> Any:
        if node.op not in ("call_function", "call_method"):
            return self._stand_in(node)
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.value)
        args, kwargs = pytree.tree_map(_on_cpu, (args, kwargs))
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        assert callable(node.target)
        return node.target(*args, **kwargs)

    def value(self, node: fx.Node) -> Any:
        """What a node gave, or something made up like it."""
        return self.values[node] if node in self.values else self._stand_in(node)

    def _stand_in(self, node: fx.Node) -> Any:
        """A value like the one a node has, on the CPU."""
        value = node.meta.get("example_value", node.meta.get("val"))
        return pytree.tree_map(self._like, value)

    def _like(self, part: Any) -> Any:
        if isinstance(part, torch.SymInt):
            return ops.size(part)
        if not isinstance(part, torch.Tensor):
            return part
        return self.make_up(tuple(ops.size(s) for s in part.shape), part.dtype)


def _on_cpu(argument: Any) -> Any:
    return torch.device("cpu") if isinstance(argument, torch.device) else argument


def random_values(
    generator: torch.Generator,
) -> Callable[[tuple[int, ...], torch.dtype], torch.Tensor]:
    """Makes up normal numbers; ones for integers and flags."""

    def make(sizes: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        if dtype.is_floating_point:
            return torch.randn(sizes, generator=generator).to(dtype)
        return torch.ones(sizes, dtype=dtype)

    return make


def neutral_values(sizes: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Makes up zeros; ones for integers and flags (tokens that are there)."""
    return torch.full(sizes, 0 if dtype.is_floating_point else 1, dtype=dtype)


def structure(starts: Sequence[fx.Node], way: Sequence[fx.Node]) -> str:
    """The steps of a way as text in which every layer writes the same."""
    numbers = {node: i for i, node in enumerate((*starts, *way))}

    def spell(node: fx.Node) -> str:
        if node in numbers:
            return f"%{numbers[node]}"
        return f"({ops.shape(node)} {ops.dtype(node)})"

    lines = [str(ops.shape(start)) for start in starts]
    for node in way:
        arguments = fx.map_arg((node.args, node.kwargs), spell)
        lines.append(f"{node.op} {node.target} {arguments}")
    return "\n".join(lines)
