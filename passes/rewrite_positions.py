"""Let the first token stand at a later position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.positions import move

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass(
    "rewrite-positions",
    requires={Fact.BOUND},
    ensures={Fact.POSITIONS_REWRITTEN},
)
def rewrite_positions(capture: Capture, plan: Plan) -> int:
    """Read tables of positions, and turn queries and keys, from a later position on.

    rewrite:
        %e = embedding(%index, table)          %a = float(%index)  (then its waves)
        ->
        %e = embedding(add(%index, start), table)    %a = float(add(%index, start))

    guards: the plan moves the positions of the site's stack; all layers of a stack have
    the same positions.
    """
    return move(capture, plan)
