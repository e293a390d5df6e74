"""Let the first token stand at a later position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.positions import shift

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass(
    "rewrite-positions",
    requires={Fact.BOUND},
    ensures={Fact.POSITIONS_REWRITTEN},
)
def rewrite_positions(capture: Capture, plan: Plan) -> int:
    """Look learned positions up further on in their table.

    rewrite:
        %e = embedding(%index, table)
        ->
        %e = embedding(add(%index, start), table)

    guards: the site is a table of positions with a start that is not 0.
    """
    moved = [r for r in plan.rewrites if r.site.kind == "embedding" and r.start]
    return sum(shift(capture, rewrite) for rewrite in moved)
