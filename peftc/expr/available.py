"""Values that were already computed, found again under any names of their labels.

In: networks of factors that got a node, and networks that need one.  Out: the node, if
the same network was computed before.  Labels that stand side by side wherever they
occur count as one, so that y[b, t, (k a)] serves a request for y[b, t, k, a].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from peftc.expr import ir
from peftc.expr.ir import Labels, Node, View
from peftc.expr.normal import Factor, TermKey, canonical
from peftc.expr.places import TOKEN_AXES
from peftc.expr.sizes import product

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peftc.expr.sizes import Size

Runs: TypeAlias = dict[int, Labels]
"""Runs of labels that count as one, by their first."""


@dataclass
class Available:
    """A table of networks by canonical form."""

    _nodes: dict[TermKey, tuple[Node, Labels]] = field(default_factory=dict)
    _members: set[tuple[Node, ...]] = field(default_factory=set)

    def remember(self, members: Sequence[Factor], node: Node, order: Labels) -> None:
        """Enter a node whose axes are labelled `order`."""
        runs = _runs([*members, (node, order)], order)
        plain = [_merged(factor, runs) for factor in members]
        node, order = _merged((node, order), runs)
        standard = _standard(plain, order)
        places = tuple(standard.index(label) for label in order)
        self._nodes.setdefault(canonical(plain, standard), (node, places))
        self._members.add(_names(members))

    def find(self, members: Sequence[Factor], keep: Labels) -> Factor | None:
        """The node for a network summed to `keep`, with the labels of its axes."""
        if _names(members) not in self._members:
            return None
        runs = _runs(members, keep)
        plain = [_merged(factor, runs) for factor in members]
        inner = {label for run in runs.values() for label in run[1:]}
        standard = _standard(plain, tuple(n for n in keep if n not in inner))
        hit = self._nodes.get(canonical(plain, standard))
        if hit is None:
            return None
        node, places = hit
        return _split(node, tuple(standard[place] for place in places), runs, members)


def _names(members: Sequence[Factor]) -> tuple[Node, ...]:
    """The factors without their views: what tells most networks apart."""
    nodes = (n.operands[0] if isinstance(n, View) else n for n, _ in members)
    return tuple(sorted(nodes, key=lambda node: node.key))


def _standard(members: Sequence[Factor], labels: Labels) -> Labels:
    """Labels in the order of appearance in sorted factors."""
    place: dict[int, int] = {}
    for _, row in sorted(members, key=lambda factor: factor[0].key):
        for label in row:
            place.setdefault(label, len(place))
    return tuple(sorted(labels, key=place.__getitem__))


def _runs(rows: Sequence[Factor], keep: Labels) -> Runs:
    """The longest runs of feature labels that stand side by side everywhere."""
    after = _neighbours(rows, lambda row, i: i + 1)
    before = _neighbours(rows, lambda row, i: i - 1)
    runs: Runs = {}
    start: dict[int, int] = {}
    for node, row in rows:
        for axis, label in zip(node.axes, row, strict=True):
            other = before[label]
            joined = other is not None and after[other] == label
            if axis in TOKEN_AXES or not joined or label in start:
                continue
            assert other is not None
            if (label in keep) == (other in keep):
                first = start.get(other, other)
                start[label] = first
                runs[first] = (*runs.get(first, (first,)), label)
    return runs


def _neighbours(
    rows: Sequence[Factor], place: Callable[[Labels, int], int]
) -> dict[int, int | None]:
    """The label beside each, None if it differs, is a token axis, or there is none."""
    found: dict[int, int | None] = {}
    for node, row in rows:
        for i, label in enumerate(row):
            j = place(row, i)
            inside = 0 <= j < len(row) and node.axes[j] not in TOKEN_AXES
            beside = row[j] if inside and row.count(label) == 1 else None
            if found.setdefault(label, beside) != beside:
                found[label] = None
    return found


def _merged(factor: Factor, runs: Runs) -> Factor:
    node, labels = factor
    kept: list[int] = []
    axes: list[Size] = []
    i = 0
    while i < len(labels):
        count = len(runs.get(labels[i], (labels[i],)))
        kept.append(labels[i])
        axes.append(product(node.axes[i : i + count]))
        i += count
    return ir.view(node, axes), tuple(kept)


def _split(node: Node, labels: Labels, runs: Runs, members: Sequence[Factor]) -> Factor:
    size = {n: a for f, row in members for n, a in zip(row, f.axes, strict=True)}
    fine = tuple(n for label in labels for n in runs.get(label, (label,)))
    return ir.view(node, (size[label] for label in fine)), fine
