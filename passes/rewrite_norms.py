"""Rewrite the gains and offsets of norms."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.edit import replace, sites_of
from peftc.rewrite.emit import emit
from peftc.rewrite.uses import Use, uses
from peftc.sites.anchors import Edit, NormAnchor

if TYPE_CHECKING:
    from torch import fx

    from peftc.expr.program import Program
    from peftc.plan.types import Plan
    from peftc.sites.anchors import Capture


@graph_pass(
    "rewrite-norms",
    requires={Fact.EDGES_REWRITTEN},
    ensures={Fact.NORMS_REWRITTEN},
)
def rewrite_norms(capture: Capture, plan: Plan) -> int:
    """Every use of a gain or an offset reads what its program computes.

    rewrite:
        %n = norm(%x, g[hidden], c[hidden])
        ->
        %a = program(g, c, added...);  %n = norm(%x, %a, c)

    guards: runs after the edges, so that a norm they repeat is rewritten alike.
    """
    norms = list(uses(capture, plan, NormAnchor))
    for use in norms:
        for program in use.rewrite.programs:
            _rewrite(use, program)
    return len(norms)


def _rewrite(use: Use[NormAnchor], program: Program) -> None:
    old = _read(use, program.target)
    readers = sorted(u for u in old.users if use.key not in sites_of(u))
    at = use.inserter(readers[0], readers[0])
    new = emit(use.source(program, old, partial(_read, use)), at, {})
    replace(use.capture, Edit((use.key,), (program.target,), old, new))


def _read(use: Use[NormAnchor], name: str) -> fx.Node:
    match name:
        case "g":
            return use.anchor.gain
        case "c":
            return use.given("c", use.anchor.offset)
    return use.tensor(name)
