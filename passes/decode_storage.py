"""Decode the weights that are kept in codes, where they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.stored import read_decoded

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass("decode-storage", requires={Fact.VERIFIED}, ensures={Fact.DECODED})
def decode_storage(capture: Capture, plan: Plan) -> int:
    """Let every reader of a weight that is kept in codes read the decoded weight.

    rewrite:
        %y = linear(%x[*, in], W[out, in], bias);  %n = norm(W)
        ->
        %y = stored_linear(%x, bias, form, codes...)
        %w = decoded(form, codes...);  %n = norm(%w)

    guards: none.  It is the last pass, so that methods, which mean the decoded weight
    by `W`, need not know of it.
    """
    return sum(read_decoded(capture, stored) for stored in plan.stores)
