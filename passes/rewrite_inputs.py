"""Put the rows that methods add among the tokens where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.inputs import insert_rows
from peftc.rewrite.uses import uses
from peftc.sites.anchors import InputAnchor

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass("rewrite-inputs", requires={Fact.BOUND}, ensures={Fact.INPUTS_REWRITTEN})
def rewrite_inputs(capture: Capture, plan: Plan) -> int:
    """The stack begins with the site's rows at the places that were made for them.

    rewrite:
        %e = embedding(%tokens, table)
        ->
        %e = embedding(%tokens, table);  %rows = program(added...)
        %f = where(%numbers >= 0, %rows[%numbers], %e)

    guards: the call that is captured got places for rows; one that goes on from a cache
    has none, and its site is not in the capture.
    """
    found = list(uses(capture, plan, InputAnchor))
    for use in found:
        insert_rows(use)
    return len(found)
