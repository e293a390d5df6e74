"""Rewrite the linears whose whole output a method changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.edit import after, replace
from peftc.rewrite.linear import emit_linear, output
from peftc.rewrite.together import emit_together, functions
from peftc.rewrite.uses import Use, uses
from peftc.sites.anchors import Edit, LinearAnchor

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.rewrite.together import Functions
    from peftc.sites.anchors import Capture


@graph_pass("rewrite-linears", requires={Fact.BOUND}, ensures={Fact.LINEARS_REWRITTEN})
def rewrite_linears(capture: Capture, plan: Plan) -> int:
    """Every reader of a linear's output reads what its program computes.

    rewrite:
        %y = linear(%x[*, in], W[out, in], bias[out]);  use(%y)
        ->
        %y = linear(%x, W, bias);  %z = program(%x, %y, W, bias, added...);  use(%z)

    guards: the site is all rows of its weight.  If the program reads no %y, the linear
    falls to dead code elimination.
    """
    whole = [
        u for u in uses(capture, plan, LinearAnchor) if u.rewrite.site.rows is None
    ]
    known = functions(plan) if capture.together else {}
    for use in whole:
        _rewrite(use, known)
    return len(whole)


def _rewrite(use: Use[LinearAnchor], known: Functions) -> None:
    y = output(use)
    at = use.inserter(after(y), use.anchor.call)
    one = emit_together(use, y, at, known)
    new = emit_linear(use, y, at) if one is None else one
    replace(use.capture, Edit((use.key,), ("y",), y, new))
