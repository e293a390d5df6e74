"""Labels of a term: which are one, which are split into others.

In: constraints that views and Kronecker deltas put on labels.  Out: for each label the
finest labels it stands for.  Two different splits of one axis get their common
refinement if their sizes nest; else `Mismatch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from peftc.expr.sizes import Size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.expr.ir import Axes, Labels

Constraint: TypeAlias = "tuple[int, tuple[int, ...]]"
"""A label and what it is, in row-major order: one label (the same), or several."""


class Mismatch(Exception):
    """Views of one axis that have no common refinement."""


@dataclass
class Allocator:
    """Hands out labels, numbered from zero, and knows their sizes."""

    size: list[Size] = field(default_factory=list)

    def fresh(self, axis: Size) -> int:
        """A new label."""
        self.size.append(axis)
        return len(self.size) - 1

    def many(self, axes: Axes) -> Labels:
        """A new label for each axis."""
        return tuple(map(self.fresh, axes))


def align(
    allocator: Allocator, outer: Labels, inner: Axes
) -> tuple[list[Constraint], Labels]:
    """Relate the labels of a view with new ones for the axes of its operand."""
    labels = allocator.many(inner)
    constraints: list[Constraint] = []
    for a, b in _groups(allocator, outer, labels):
        if len(b) == 1:
            constraints.append((b[0], a))
        elif len(a) == 1:
            constraints.append((a[0], b))
        else:
            whole = allocator.fresh(_product(allocator, a))
            constraints += [(whole, a), (whole, b)]
    return constraints, labels


def _product(allocator: Allocator, labels: Sequence[int]) -> Size:
    total = Size.of(1)
    for label in labels:
        total = total * allocator.size[label]
    return total


def _groups(
    allocator: Allocator, outer: Labels, inner: Labels
) -> list[tuple[Labels, Labels]]:
    """The finest cut of both into runs of equal products; none of them empty."""
    groups: list[tuple[Labels, Labels]] = []
    while outer and inner:
        i, j = _shortest(allocator, outer, inner)
        groups.append((outer[:i], inner[:j]))
        outer, inner = outer[i:], inner[j:]
    if (outer or inner) and groups:  # axes of size one at the end
        a, b = groups.pop()
        groups.append((a + outer, b + inner))
    return groups


def _shortest(allocator: Allocator, outer: Labels, inner: Labels) -> tuple[int, int]:
    products: dict[Size, int] = {}
    total = Size.of(1)
    for i, label in enumerate(outer, start=1):
        total = total * allocator.size[label]
        products.setdefault(total, i)
    total = Size.of(1)
    for j, label in enumerate(inner, start=1):
        total = total * allocator.size[label]
        if total in products:
            return products[total], j
    raise Mismatch("views do not line up")


@dataclass
class Splits:
    """Union-find over labels, with row-major splits on the representatives."""

    allocator: Allocator
    parent: dict[int, int] = field(default_factory=dict)
    parts: dict[int, Labels] = field(default_factory=dict)

    def find(self, label: int) -> int:
        """The representative of a label."""
        while label in self.parent:
            label = self.parent[label]
        return label

    def require(self, constraint: Constraint) -> None:
        """Make a constraint hold."""
        label, parts = constraint
        if len(parts) == 1:
            self.unite(label, parts[0])
        else:
            self.split(label, parts)

    def unite(self, a: int, b: int) -> None:
        """Make two labels one."""
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        self.parent[b] = a
        if b in self.parts:
            self.split(a, self.parts.pop(b))

    def split(self, label: int, parts: Labels) -> None:
        """Split a label, refining the split it has."""
        label = self.find(label)
        known = self.parts.get(label)
        if known is None:
            self.parts[label] = parts
        else:
            self.parts[label] = tuple(self._refine(list(known), list(parts)))

    def _refine(self, left: list[int], right: list[int]) -> list[int]:
        """Both lists cut to common parts, from the slowest axis on."""
        size, common = self.allocator.size, []
        while left and right:
            if size[left[0]] == size[right[0]]:
                self.unite(left[0], right[0])
                common.append(left.pop(0))
                right.pop(0)
                continue
            if _number(size[left[0]]) < _number(size[right[0]]):
                left, right = right, left
            common.append(right[0])
            left[0] = self._behead(left[0], right.pop(0))
        return common + left + right

    def _behead(self, label: int, head: int) -> int:
        """Split `label` into `head` and the rest, which is returned."""
        size = self.allocator.size
        if _number(size[label]) % _number(size[head]):
            raise Mismatch("splits of one axis that do not nest")
        rest = self.allocator.fresh(size[label] / size[head])
        self.split(label, (head, rest))
        return rest

    def leaves(self, label: int) -> Labels:
        """The finest labels that a label stands for."""
        label = self.find(label)
        parts = self.parts.get(label)
        if parts is None:
            return (label,)
        return tuple(leaf for part in parts for leaf in self.leaves(part))


def _number(size: Size) -> int:
    if size.number is None:
        raise Mismatch("different splits of an axis whose size is not known yet")
    return size.number
