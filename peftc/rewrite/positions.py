"""Positions, moved: look-ups further along a table, rotations further on.

In: a Capture and a plan in which methods move the first token.  Out: the graph in which
every look-up of a table of positions, and every rotation of queries and keys, adds the
start to the positions it reads.  Masks and caches count as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

from peftc.plan.positions import starts_of
from peftc.rewrite.edit import now, replace
from peftc.rewrite.insert import Inserter
from peftc.rewrite.uses import anchors
from peftc.sites.anchors import AttentionAnchor, Edit, EmbeddingAnchor, PositionRead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.types import Plan
    from peftc.sites.anchors import Anchor, Capture

START = "start"


Moved: TypeAlias = tuple[str, int]
"""The key of a site, and by how much its positions are moved."""


def move(capture: Capture, plan: Plan) -> int:
    """Move all positions that the plan moves; returns how many reads of them."""
    reads = dict(_reads(capture, plan))
    for read, (site, start) in reads.items():
        index = now(capture, read.value, read.reader)
        at = Inserter(read.reader, site, read.reader)
        moved = at.put(torch.add, index, start)
        replace(capture, Edit((site,), (START,), index, moved, read.reader))
    return len(reads)


def _reads(capture: Capture, plan: Plan) -> Iterator[tuple[PositionRead, Moved]]:
    """Every read of positions, with a site and the start; those of layers that share
    their rotations are one."""
    starts = starts_of(plan.rewrites)
    for rewrite in plan.rewrites:
        if rewrite.start and not rewrite.site.cross:
            moved = (rewrite.site.key, starts[rewrite.site.stack])
            for anchor in anchors(capture, rewrite):
                yield from ((read, moved) for read in _of(anchor))


def _of(anchor: Anchor) -> tuple[PositionRead, ...]:
    """Where positions are read at an anchor."""
    if isinstance(anchor, EmbeddingAnchor):
        return (PositionRead(anchor.index, anchor.call),)
    return anchor.turned if isinstance(anchor, AttentionAnchor) else ()
