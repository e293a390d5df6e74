"""Values that were already computed, found again under any names of their labels.

In: networks of factors that got a node, and networks that need one.  Out: the node, if
the same network was computed before, also with axes merged that are split now:
y[b, t, (k a)] serves a request for y[b, t, k, a].
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.ir import Axes, Labels, Node, View
from peftc.expr.normal import Factor, TermKey, canonical
from peftc.expr.sizes import product

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peftc.expr.sizes import Size


@dataclass
class Available:
    """A table of networks by canonical form."""

    _nodes: dict[TermKey, tuple[Node, Labels]] = field(default_factory=dict)
    _members: set[tuple[Node, ...]] = field(default_factory=set)

    def remember(self, members: Sequence[Factor], node: Node, order: Labels) -> None:
        """Enter a node whose axes are labelled `order`."""
        standard = sorted(order, key=_rank(members))
        places = tuple(standard.index(label) for label in order)
        key = canonical(members, tuple(standard))
        self._nodes.setdefault(key, (node, places))
        self._members.add(_names(members))

    def find(self, members: Sequence[Factor], keep: Labels) -> Factor | None:
        """The node for a network summed to `keep`, with the labels of its axes."""
        if _names(members) in self._members:
            standard = sorted(keep, key=_rank(members))
            hit = self._nodes.get(canonical(members, tuple(standard)))
            return hit and (hit[0], tuple(standard[place] for place in hit[1]))
        if any(isinstance(node, View) for node, _ in members):
            return self._find_merged(members, keep)
        return None

    def _find_merged(self, members: Sequence[Factor], keep: Labels) -> Factor | None:
        merging = _merging(members)
        if merging is None:
            return None
        groups, plain = merging
        whole = _merge_kept(groups, keep)
        hit = None if whole is None else self.find(plain, whole)
        if hit is None:
            return None
        axes: list[Size] = []
        labels: list[int] = []
        for label, axis in zip(hit[1], hit[0].axes, strict=True):
            parts, sizes = groups.get(label, ((label,), (axis,)))
            labels += parts
            axes += sizes
        return ir.view(hit[0], axes), tuple(labels)


Groups = dict[int, tuple[Labels, Axes]]
"""New labels (negative) and the labels and sizes each one is split into."""


def _names(members: Sequence[Factor]) -> tuple[Node, ...]:
    return tuple(sorted((node for node, _ in members), key=lambda node: node.key))


def _rank(members: Sequence[Factor]) -> Callable[[int], int]:
    place: dict[int, int] = {}
    for _, labels in sorted(members, key=lambda factor: factor[0].key):
        for label in labels:
            place.setdefault(label, len(place))
    return place.__getitem__


def _merging(members: Sequence[Factor]) -> tuple[Groups, list[Factor]] | None:
    """The members with split views undone, or None if the splits do not agree."""
    numbers: dict[Labels, int] = {}
    groups: Groups = {}
    plain: list[Factor] = []
    for node, labels in members:
        pieces = _pieces(node, labels)
        if pieces is None:
            return None
        merged = []
        for parts, sizes in pieces:
            if len(parts) == 1:
                merged.append(parts[0])
                continue
            number = numbers.setdefault(parts, -1 - len(numbers))
            groups[number] = (parts, sizes)
            merged.append(number)
        plain.append((_unviewed(node), tuple(merged)))
    split = [label for parts, _ in groups.values() for label in parts]
    used = {label for _, labels in plain for label in labels}
    if len(set(split)) != len(split) or used & set(split):
        return None
    return groups, plain


def _unviewed(node: Node) -> Node:
    return node.operands[0] if isinstance(node, View) else node


def _pieces(node: Node, labels: Labels) -> list[tuple[Labels, Axes]] | None:
    """For each axis below a view, the labels it is split into; None for a merge."""
    if not isinstance(node, View):
        pairs = zip(labels, node.axes, strict=True)
        return [((label,), (axis,)) for label, axis in pairs]
    pieces: list[tuple[Labels, Axes]] = []
    at = 0
    for axis in node.operands[0].axes:
        end = at + 1
        while end < len(labels) and product(node.axes[at:end]) != axis:
            end += 1
        if product(node.axes[at:end]) != axis:
            return None
        pieces.append((labels[at:end], node.axes[at:end]))
        at = end
    return pieces if at == len(labels) else None


def _merge_kept(groups: Groups, keep: Labels) -> Labels | None:
    """`keep` with merged labels; None if a group is kept in part."""
    kept = [label for label in keep if not any(label in p for p, _ in groups.values())]
    for number, (parts, _) in groups.items():
        inside = [label in keep for label in parts]
        if any(inside) and not all(inside):
            return None
        if all(inside):
            kept.append(number)
    return tuple(kept)
