"""Which tables hold learned absolute positions.

In: a look-up, or a stream.  Out: whether an index counts tokens: made by an arange or a
running sum, or cut from a stored row of numbers no longer than the table.  A table
whose rows only go into the scores of an attention holds a relative bias, no positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.sites import ops
from peftc.sites.anchors import PositionRead

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.anchors import EmbeddingAnchor
    from peftc.sites.attention import Attention
    from peftc.sites.reading import Reading
    from peftc.sites.streams import Stream

_LOOKUPS = frozenset(("gather", "index", "index_select", "getitem", "embedding"))
_WAVES = frozenset(("cos", "sin", "polar"))
_COUNTING = frozenset(("arange", "cumsum"))


def is_position(gather: EmbeddingAnchor, table: fx.Node, reading: Reading) -> bool:
    """Whether a look-up reads positions from `table`."""
    made = reading.flow.back(gather.index, lambda n: _is_end(n, reading))
    counts = any(ops.name(n) in _COUNTING or _is_row(n, table, reading) for n in made)
    return counts and not _is_bias(gather, reading)


def is_computed(stream: Stream, reading: Reading) -> bool:
    """Whether positions enter what a stream begins with, but from no learned table.

    They are read off a stored table of waves, or made of numbers on the spot.
    """
    ends, gathers = reading.ends, reading.products.gathers
    made = reading.flow.back(stream.additions[0].origin, ends.__contains__)
    looked_up = [gathers[node] for node in made & gathers.keys()]
    if any(is_position(gather, gather.weight, reading) for gather in looked_up):
        return False
    return any(ops.name(node) in _COUNTING for node in made - ends)


def turned(attention: Attention, reading: Reading) -> tuple[PositionRead, ...]:
    """Where positions enter what queries and keys are rotated by.

    There whole numbers become waves, or pick rows of a stored table of them.
    """
    ends = reading.ends.__contains__
    inputs = (attention.query, attention.key)
    made = {n for one in inputs for n in reading.flow.back(one, ends)} - reading.ends
    return tuple(
        PositionRead(value, node)
        for node in sorted(made, key=reading.flow.order.__getitem__)
        for value in ops.inputs(node)
        if value in made and _is_whole(value) and not _is_whole(node)
        if _becomes_waves(node, made, reading)
    )


def _is_whole(node: fx.Node) -> bool:
    return ops.dtype(node) in ("int64", "int32")


def _becomes_waves(node: fx.Node, made: set[fx.Node], reading: Reading) -> bool:
    if ops.name(node) in _LOOKUPS:
        return True
    todo, seen = [node], {node}
    while todo:
        node = todo.pop()
        if ops.name(node) in _WAVES:
            return True
        new = (set(reading.flow.outputs(node)) & made) - seen
        seen |= new
        todo.extend(new)
    return False


def _is_end(node: fx.Node, reading: Reading) -> bool:
    """Where numbers begin; what is picked by position need be no position."""
    return node in reading.ends or ops.name(node) == "gather"


def _is_row(node: fx.Node, table: fx.Node, reading: Reading) -> bool:
    """Whether a node is a stored row of numbers that may all index the table."""
    if node.op not in ("placeholder", "get_attr") or node in reading.names:
        return False
    *others, length = ops.shape(node) or (0,)
    is_row = length > 1 and others in ([], [1])
    return is_row and ops.dtype(node) == "int64" and length <= ops.shape(table)[0]


def _is_bias(gather: EmbeddingAnchor, reading: Reading) -> bool:
    outs = {attention.out for attention in reading.attentions}
    return set(reading.flow.ahead(gather.call, reading.ends.__contains__)) <= outs
