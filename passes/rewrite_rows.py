"""Rewrite sites that are some rows of a fused linear."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.edit import after, replace
from peftc.rewrite.linear import emit_linear, output, take_rows
from peftc.rewrite.rows import by_call, check_alone, join, joiner
from peftc.rewrite.uses import Use, uses
from peftc.sites.anchors import Edit, LinearAnchor

if TYPE_CHECKING:
    from torch import fx

    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass(
    "rewrite-rows", requires={Fact.LINEARS_REWRITTEN}, ensures={Fact.ROWS_REWRITTEN}
)
def rewrite_rows(capture: Capture, plan: Plan) -> int:
    """Compute the programs of all row sites of a linear and join its output again.

    rewrite:
        %y = linear(%x[*, in], W[out, in], bias[out]);  use(%y)
        ->
        %y = linear(%x, W, bias)
        %p = %y[*, rows];  %q = program(%x, %p, W[rows], bias[rows], added...)
        %z = %y with %q at rows;  use(%z)

    guards: where the whole linear was rewritten too, the program reads no base weight.
    Outputs of other rows keep their bits.
    """
    rows = [u for u in uses(capture, plan, LinearAnchor) if u.rewrite.site.rows]
    for group in by_call(rows):
        _rewrite(group)
    return len(rows)


def _rewrite(group: list[Use[LinearAnchor]]) -> None:
    first = group[0]
    y = output(first)
    before = after(y)
    for use in group:
        check_alone(use)
    pieces = [(use, _piece(use, y, before)) for use in group]
    new = join(pieces, y, joiner(group, before))
    sites = tuple(use.key for use in group)
    replace(first.capture, Edit(sites, ("y",), y, new))


def _piece(use: Use[LinearAnchor], y: fx.Node, before: fx.Node) -> fx.Node:
    at = use.inserter(before, use.anchor.call)
    return emit_linear(use, take_rows(use, y, -1, at, use.anchor.first), at)
