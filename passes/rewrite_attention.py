"""Extend attentions by the keys and values that methods add."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.fused import extend_fused
from peftc.rewrite.spelt import extend_spelt
from peftc.rewrite.uses import uses
from peftc.sites.anchors import AttentionAnchor

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass(
    "rewrite-attention",
    requires={Fact.LINEARS_REWRITTEN, Fact.ROWS_REWRITTEN},
    ensures={Fact.ATTENTIONS_REWRITTEN},
)
def rewrite_attention(capture: Capture, plan: Plan) -> int:
    """Every query of an attention also attends to the rows of the site's programs.

    rewrite:
        %o = attention(%q, %k, %v, mask)
        ->
        %rows = program(added...);  %values = program(added...)
        %o = attention(%q, cat(%rows, %k), cat(%values, %v), pad(mask))

    guards: what is cached stays as it was: rows enter at the attention, after every
    rotation, norm and cache; they have no mask and no bias, and no window drops them.
    """
    found = list(uses(capture, plan, AttentionAnchor))
    for use in found:
        if use.anchor.attention.softmax is None:
            extend_fused(use)
        else:
            extend_spelt(use)
    return len(found)
