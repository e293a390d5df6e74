"""Check that the graph holds every rewrite that the plan asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.check import check_rewritten

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass(
    "verify-rewrites",
    requires={
        Fact.LINEARS_REWRITTEN,
        Fact.ROWS_REWRITTEN,
        Fact.ATTENTIONS_REWRITTEN,
        Fact.POSITIONS_REWRITTEN,
        Fact.INPUTS_REWRITTEN,
        Fact.EDGES_REWRITTEN,
        Fact.NORMS_REWRITTEN,
    },
    ensures={Fact.VERIFIED},
)
def verify_rewrites(capture: Capture, plan: Plan) -> int:
    """Refuse a graph in which a rewrite is missing, doubled, or without effect.

    rewrite:
        none: it reads the graph and the edits, and rewrites nothing.

    guards: each located site was rewritten once for each use; a replaced value is read
    by the nodes of its own rewrite only; an edge's reader reads the new value; every
    added tensor of a program is read; the graph is well formed.
    """
    check_rewritten(capture, plan)
    capture.graph.lint()
    return 0
