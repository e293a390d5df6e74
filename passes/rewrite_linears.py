"""Rewrite the linears whose whole output a method changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.edit import after, replace
from peftc.rewrite.linear import emit_linear, output
from peftc.rewrite.together import emit_together, joint_programs
from peftc.rewrite.uses import Use, uses
from peftc.sites.anchors import Edit, LinearAnchor

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass("rewrite-linears", requires={Fact.BOUND}, ensures={Fact.LINEARS_REWRITTEN})
def rewrite_linears(capture: Capture, plan: Plan) -> int:
    """Every reader of a linear's output reads what its program computes.

    rewrite:
        %y = linear(%x[*, in], W[out, in], bias[out]);  use(%y)
        ->
        %y = linear(%x, W, bias);  %z = program(%x, %y, W, bias, added...);  use(%z)

    guards: the site is all rows of its weight.  If the program reads no %y, the linear
    falls to dead code elimination.  Linears of one %x in one module are one
    node with their programs, where `rewrite.together` can.
    """
    whole = [
        u for u in uses(capture, plan, LinearAnchor) if u.rewrite.site.rows is None
    ]
    programs = joint_programs(plan, capture)
    done = {id(use) for use in emit_together(whole, programs)}
    for use in whole:
        if id(use) not in done:
            _rewrite(use)
    return len(whole)


def _rewrite(use: Use[LinearAnchor]) -> None:
    y = output(use)
    new = emit_linear(use, y, use.inserter(after(y), use.anchor.call))
    replace(use.capture, Edit((use.key,), ("y",), y, new))
