"""Row sites of one fused linear, rewritten together.

In: the uses that share one call.  Out: the call's result put together again from the
new values of the sites and the untouched rest: one `cat` for sites that are ranges of
rows, one `index_copy` for those that are not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import WholeAndRows
from peftc.rewrite.insert import BOTH, Inserter, example
from peftc.rewrite.linear import is_slice, row_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import fx

    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import LinearAnchor

Piece = tuple["Use[LinearAnchor]", "fx.Node"]
"""A row site and the new value of its rows."""

READS_BASE = ("W", "bias", "base", "product")


def by_call(uses: Iterable[Use[LinearAnchor]]) -> list[list[Use[LinearAnchor]]]:
    """Uses grouped by the call they are rows of, calls in the order of the graph."""
    groups: dict[fx.Node, list[Use[LinearAnchor]]] = {}
    for use in uses:
        groups.setdefault(use.anchor.call, []).append(use)
    return [groups[call] for call in sorted(groups)]


def check_alone(use: Use[LinearAnchor]) -> None:
    """Refuse a program that reads the base weight where the whole was rewritten.

    Raises:
        PeftcError: naming both sites.
    """
    capture, anchor = use.capture, use.anchor
    (program,) = use.rewrite.programs
    names = [i.name for i in program.inputs] + [step.op for step in program.steps]
    reads = [name for name in READS_BASE if name in names]
    outputs = (anchor.y, anchor.written)
    whole = [e for e in capture.edits if e.old in outputs and e.sites]
    if reads and whole:
        site = whole[0].sites[0]
        raise fail(WholeAndRows(site=use.key, whole=site, name=reads[0]))


def joiner(group: list[Use[LinearAnchor]], before: fx.Node) -> Inserter:
    """Puts nodes that are there for all sites of a group."""
    each = [use.inserter(before, use.anchor.call) for use in group]
    spans = dict.fromkeys(at.span for at in each if at.span)
    site = BOTH.join(at.site for at in each)
    return replace(each[0], site=site, span=BOTH.join(spans))


def join(pieces: list[Piece], y: fx.Node, at: Inserter) -> fx.Node:
    """`y` with the rows of each piece replaced."""
    slices = [piece for piece in pieces if is_slice(piece[0])]
    others = [piece for piece in pieces if not is_slice(piece[0])]
    if slices:
        y = at.put(torch.cat, list(_parts(slices, y, at)), -1)
    if others:
        numbers = [row_numbers(use, at, use.anchor.first) for use, _ in others]
        rows = _together(numbers, 0, at)
        y = at.put(
            torch.index_copy, y, -1, rows, _together([v for _, v in others], -1, at)
        )
    return y


def _parts(slices: list[Piece], y: fx.Node, at: Inserter) -> Iterator[fx.Node]:
    """The new values and, between them, what stays of `y`."""
    position = 0
    for (start, stop), value in sorted(_range(piece) for piece in slices):
        assert position <= start, "row sites overlap"
        if position < start:
            yield at.put(torch.narrow, y, -1, position, start - position)
        yield value
        position = stop
    size = example(y).shape[-1]
    if position < size:
        yield at.put(torch.narrow, y, -1, position, size - position)


def _range(piece: Piece) -> tuple[tuple[int, int], fx.Node]:
    """The channels of the call that a piece is, and its value."""
    use, value = piece
    assert use.rewrite.site.rows is not None
    start, stop = (row - use.anchor.first for row in use.rewrite.site.rows[0])
    return (start, stop), value


def _together(nodes: list[fx.Node], axis: int, at: Inserter) -> fx.Node:
    return nodes[0] if len(nodes) == 1 else at.put(torch.cat, nodes, axis)
