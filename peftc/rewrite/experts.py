"""Values and products of a stack of experts, row by row.

In: an anchor with its routing, and values with an axis of experts ("E").  Out: inserted
nodes over the rows of the activation, by the same kind of product as the graph's own:
no program knows that its matrices are many.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from peftc.rewrite.insert import example
from peftc.rewrite.values import EXPERTS, Value, product, reshape

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.insert import Inserter
    from peftc.sites.anchors import LinearAnchor, Routing

EXPERT_ROWS = {EXPERTS: "*", "*": "", "": ""}
"""The label that a value of each lead gains when it is seen by rows."""
ALIGNED = 8  # numbers of a bfloat16 row in the 16 bytes that torch's kernel asks for


@dataclass(frozen=True)
class Experts:
    """The experts of one use of a stacked linear."""

    anchor: LinearAnchor
    routing: Routing

    of_base = True
    """Whether the base's own values have the axis."""

    def spread(self, at: Inserter, value: fx.Node) -> fx.Node:
        """What each row sees of a value [experts, ...]: leading axes broadcast to the
        activation's."""
        if self.routing.kind == "each":
            return at.put(torch.unsqueeze, value, 1)
        return at.put(torch.index_select, value, 0, self._numbers(at))

    def product(self, at: Inserter, value: Value, matrix: Value) -> tuple[fx.Node, str]:
        """value[rows, k] times matrix[experts, n, k]: [rows, n]."""
        return self.rows(at, value.node, matrix.node), "*"

    def rows(self, at: Inserter, value: fx.Node, matrix: fx.Node) -> fx.Node:
        """The same of nodes."""
        turned = at.put(torch.transpose, matrix, -2, -1)
        if self.routing.kind == "each":
            return at.put(torch.matmul, value, turned)
        if self.routing.kind == "grouped":
            return self._grouped(at, value, turned)
        row = at.put(torch.unsqueeze, value, 1)
        rows = at.put(torch.bmm, row, self.spread(at, turned))
        return at.put(torch.squeeze, rows, 1)

    def ein(self, at: Inserter, spec: str, args: list[Value]) -> tuple[fx.Node, str]:
        """The product of token values and values of experts, by `spec`."""
        before, _, out = spec.partition("->")
        rows = before.split(",")
        if self.routing.kind == "grouped" and (form := _form(rows, out, args)):
            value, matrix = form.operands(at)
            return form.result(self.rows(at, value, matrix), at), "*"
        labels = [EXPERT_ROWS[a.lead] + row for a, row in zip(args, rows, strict=True)]
        seen = [self.seen(a, at) for a in args]
        return product(f"{','.join(labels)}->{out}", seen, "*", at)

    def seen(self, value: Value, at: Inserter) -> Value:
        """A value as the rows see it."""
        if value.lead != EXPERTS:
            return value
        return Value(self.spread(at, value.node), "*", value.shape, value.span)

    def finish(self, value: Value, target: fx.Node, at: Inserter) -> Value:
        """The new value: every row has its expert."""
        return self.seen(value, at)

    def _numbers(self, at: Inserter) -> fx.Node:
        """The expert of each row."""
        index = self.routing.index
        assert index is not None
        if self.routing.kind == "picked":
            return index
        x, ends = self.anchor.x, example(index)
        rows = at.put(
            torch.arange, at.put("size", x, 0), dtype=ends.dtype, device=ends.device
        )
        numbers = at.put(torch.searchsorted, index, rows, right=True)
        # Rows after the last end belong to experts that are elsewhere.
        return at.put(torch.clamp, numbers, max=ends.shape[0] - 1)

    def _grouped(self, at: Inserter, value: fx.Node, matrix: fx.Node) -> fx.Node:
        """value[rows, k] times matrix[experts, k, n], rows sorted by expert."""
        dtype = example(matrix).dtype
        if example(value).dtype != dtype:  # autocast does not know these operators
            value = at.put("to", value, dtype)
        target: Any = self.anchor.call.target
        if not _takes(target, matrix):
            target = _any_type()
        return at.put(target, value, matrix, offs=self.routing.index)


@dataclass(frozen=True)
class _Form:
    """A product of a token value and a value of experts, as rows times matrices.

    `summed` are the labels of the token value, in order, all of which are summed over;
    `free` the other labels of the experts' value, in the order of the result.
    """

    value: Value
    matrix: Value
    stored: str
    summed: str
    free: str

    def operands(self, at: Inserter) -> tuple[fx.Node, fx.Node]:
        """The value [rows, k] and the matrices [experts, n, k]."""
        order = self.free + self.summed
        size = dict(zip(self.stored, self.matrix.shape, strict=True))
        node = self.matrix.node
        if order != self.stored:
            axes = [1 + self.stored.index(label) for label in order]
            node = at.put(torch.permute, node, (0, *axes))
        matrix = Value(node, EXPERTS, tuple(size[label] for label in order))
        inside = prod(size[label] for label in self.summed)
        outside = prod(size[label] for label in self.free)
        value = reshape(self.value, (inside,), at)
        return value, reshape(matrix, (outside, inside), at)

    def result(self, node: fx.Node, at: Inserter) -> fx.Node:
        """The product [rows, n] with the axes of the result."""
        size = dict(zip(self.stored, self.matrix.shape, strict=True))
        sizes = tuple(size[label] for label in self.free)
        return at.put("unflatten", node, -1, sizes) if len(sizes) > 1 else node


def _form(rows: list[str], out: str, args: list[Value]) -> _Form | None:
    """The matrix form of a product, if it has one: other products read, for each row,
    the values of its expert."""
    if sorted(a.lead for a in args) != ["*", EXPERTS]:
        return None
    token = args[0].lead == EXPERTS
    value, matrix = args[token], args[not token]
    summed, stored = rows[token].removeprefix("*"), rows[not token]
    free = out.removeprefix("*")
    distinct = len(set(stored)) == len(stored)
    if not (free and summed and distinct and sorted(summed + free) == sorted(stored)):
        return None
    return _Form(value, matrix, stored, summed, free)


def _takes(target: Any, matrix: fx.Node) -> bool:
    """Whether the graph's operator takes these matrices: torch's own is traced for
    whole 16 bytes of bfloat16 only."""
    if target is _any_type():
        return True
    value = example(matrix)
    inside, outside = value.shape[-2:]
    aligned = inside % ALIGNED == outside % ALIGNED == 0
    return aligned and value.dtype is torch.bfloat16


def _any_type() -> Any:
    """The grouped product that takes any type, which transformers brings."""
    import transformers.integrations.moe  # noqa: F401  # registers the operator

    return torch.ops.transformers.grouped_mm_fallback
