"""Positions, moved: look-ups further along a table, rotations further on.

In: a Capture and a plan in which methods move the first token.  Out: the graph in which
every look-up of a table of positions, and every rotation of queries and keys, adds the
start to the positions it reads.  Masks and caches count as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch

from peftc.rewrite.edit import now, replace
from peftc.rewrite.insert import Inserter
from peftc.rewrite.uses import anchors
from peftc.sites.anchors import AttentionAnchor, Edit, EmbeddingAnchor, PositionRead

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.types import Plan, Rewrite
    from peftc.sites.anchors import Capture

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
    for rewrite in plan.rewrites:
        start = _start(rewrite, plan)
        for anchor in anchors(capture, rewrite) if start else ():
            if isinstance(anchor, EmbeddingAnchor):
                read = PositionRead(anchor.index, anchor.call)
                yield read, (rewrite.site.key, start)
            elif isinstance(anchor, AttentionAnchor):
                for read in anchor.turned:
                    yield read, (rewrite.site.key, start)


def _start(rewrite: Rewrite, plan: Plan) -> int:
    """The start of the stack: one for all its layers, the furthest asked for."""
    if not rewrite.start or rewrite.site.cross:
        return 0
    stack = rewrite.site.stack
    return max(r.start for r in plan.rewrites if r.site.stack == stack)
