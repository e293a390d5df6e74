"""Compute the inputs of planned steps anew in the backward, where that is cheap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.region import recompute

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass("recompute-inputs", requires={Fact.VERIFIED}, ensures={Fact.LESS_KEPT})
def recompute_inputs(capture: Capture, plan: Plan) -> int:
    """Keep what an activation is made from instead of the activation.

    rewrite:
        %x = norm(%h);  %y = together(%x, W, added...);  use(%x)
        ->
        %s = together(%h, W, added...);  %y = %s[0];  %x = %s[1];  use(%x)

    guards: norms and operations on single elements alone lie between, and what they
    read is no more than what torch would keep of them.
    """
    return recompute(capture.graph) if capture.recompute else 0
