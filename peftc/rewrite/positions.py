"""Look-ups of positions, moved along their table.

In: a Capture and the rewrite of a table of positions.  Out: the graph in which every
look-up in the table adds the rewrite's start to its index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.rewrite.edit import now, replace
from peftc.rewrite.insert import Inserter
from peftc.rewrite.uses import anchors
from peftc.sites.anchors import Edit, EmbeddingAnchor

if TYPE_CHECKING:
    from peftc.plan.types import Rewrite
    from peftc.sites.anchors import Capture

START = "start"


def shift(capture: Capture, rewrite: Rewrite) -> int:
    """Move the look-ups of one table; returns how many there are."""
    found = [a for a in anchors(capture, rewrite) if isinstance(a, EmbeddingAnchor)]
    for anchor in found:
        index = now(capture, anchor.index, anchor.call)
        at = Inserter(anchor.call, rewrite.site.key, anchor.call)
        moved = at.put(torch.add, index, rewrite.start)
        edit = Edit((rewrite.site.key,), (START,), index, moved, anchor.call)
        replace(capture, edit)
    return len(found)
