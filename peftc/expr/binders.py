"""Binders: what becomes of the body of `sum[k: n](...)` and its kin.

In: the body's value, in which every index is a leading axis of the node.  Out: the
value with the indices summed over, or laid out in blocks.  No loop remains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from peftc.diagnostics.core import fail
from peftc.expr.algebra import Label, needs, positions
from peftc.expr.ir import Node, apply_map, ein, eye, literal, view
from peftc.expr.scope import Scope, Value

if TYPE_CHECKING:
    from peftc.expr.sizes import Size
    from peftc.syntax import ast


@dataclass(frozen=True)
class Bound:
    """A body with the indices of one binder, and the indices of binders around it."""

    expr: ast.Binder
    scope: Scope
    value: Value
    sizes: tuple[Size, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The indices of this binder."""
        return tuple(name for name, _ in self.expr.ranges)

    @property
    def rest(self) -> tuple[str, ...]:
        """The indices of binders around."""
        return tuple(i for i in self.value.indices if i not in self.names)

    def arranged(self, *out: Label) -> Node:
        """The body with its axes in another order, those left out summed over."""
        labels = (*self.value.indices, *positions(self.value))
        return ein((self.value.node,), (labels,), (*self.rest, *out))

    def merged(self, node: Node, *axes: Size) -> Value:
        """A node whose axes behind the outer indices are viewed as others."""
        leading = node.axes[: len(self.rest)]
        return Value(view(node, (*leading, *axes)), self.rest)

    def matrix(self) -> tuple[Size, Size]:
        """The axes of the body, which must be two."""
        if len(self.value.axes) != 2:
            operation = f"`{self.expr.kind}`"
            raise fail(needs(self.expr.body.span, operation, "matrices", self.value))
        rows, columns = self.value.axes
        return rows, columns


Binder: TypeAlias = Callable[[Bound], Value]


def carrying(value: Value, ranges: Mapping[str, Size]) -> Value:
    """The value with every index among its own, constant along those it lacked."""
    node, indices = value.node, value.indices
    for name, size in ranges.items():
        if name not in indices:
            labels = tuple(range(len(node.axes)))
            ones = literal(1, (size,))
            node = ein((node, ones), (labels, ("new",)), ("new", *labels))
            indices = (name, *indices)
    return Value(node, indices)


def one_over(axes: tuple[Size, ...], scope: Scope) -> Node:
    """1 over the number of elements along some axes, as a scalar."""
    known = [scope.extent(axis) for axis in axes]
    number = 1.0
    for extent in known:
        number /= extent or 1
    open_axes = [a for a, extent in zip(axes, known, strict=True) if extent is None]
    if not open_axes:
        return literal(number)
    count = ein((literal(1, open_axes),), (tuple(range(len(open_axes))),), ())
    return scaled(apply_map("recip", count), literal(number))


def scaled(node: Node, factor: Node) -> Node:
    """A node times a scalar."""
    labels = tuple(range(len(node.axes)))
    return ein((node, factor), (labels, ()), labels)


def _sum(body: Bound) -> Value:
    return Value(body.arranged(*positions(body.value)), body.rest)


def _mean(body: Bound) -> Value:
    return Value(scaled(_sum(body).node, one_over(body.sizes, body.scope)), body.rest)


def _concat(body: Bound) -> Value:
    """Stacked along the first axis."""
    value = body.value
    if not value.axes:
        raise fail(needs(body.expr.body.span, "`concat`", "an axis to stack", value))
    node = body.arranged(body.names[0], *positions(value))
    return body.merged(node, body.sizes[0] * value.axes[0], *value.axes[1:])


def _concat_cols(body: Bound) -> Value:
    """Matrices side by side."""
    rows, columns = body.matrix()
    node = body.arranged(0, body.names[0], 1)
    return body.merged(node, rows, body.sizes[0] * columns)


def _blockdiag(body: Bound) -> Value:
    """Matrices along the diagonal, zeros elsewhere."""
    rows, columns = body.matrix()
    (size,), (name,) = body.sizes, body.names
    operands = (body.value.node, eye(size))
    labels = ((*body.value.indices, 0, 1), (name, "'"))
    node = ein(operands, labels, (*body.rest, name, 0, "'", 1))
    return body.merged(node, size * rows, size * columns)


def _blockgrid(body: Bound) -> Value:
    """Matrices in rows and columns of blocks."""
    rows, columns = body.matrix()
    (down, across), (i, j) = body.sizes, body.names
    node = body.arranged(i, 0, j, 1)
    return body.merged(node, down * rows, across * columns)


BINDERS: Mapping[str, Binder] = {
    "sum": _sum,
    "mean": _mean,
    "concat": _concat,
    "concat_cols": _concat_cols,
    "blockdiag": _blockdiag,
    "blockgrid": _blockgrid,
}
