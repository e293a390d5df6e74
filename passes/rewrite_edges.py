"""Rewrite hidden edges: a sublayer's output as its residual add reads it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.edit import after, now, replace
from peftc.rewrite.emit import emit
from peftc.rewrite.insert import replay
from peftc.rewrite.linear import repeated
from peftc.rewrite.real import real_tokens
from peftc.rewrite.uses import Use, uses
from peftc.sites.anchors import Edit, HiddenAnchor

if TYPE_CHECKING:
    from torch import fx

    from peftc.plan.types import Plan
    from peftc.rewrite.insert import Inserter
    from peftc.sites.anchors import Capture


@graph_pass(
    "rewrite-edges",
    requires={Fact.LINEARS_REWRITTEN, Fact.ROWS_REWRITTEN},
    ensures={Fact.EDGES_REWRITTEN},
)
def rewrite_edges(capture: Capture, plan: Plan) -> int:
    """The reader of an edge reads what the site's program computes.

    rewrite:
        %h = sublayer(%u);  %s = add(%residual, %h);  %n = norm(%s)
        ->
        %h = sublayer(%u)
        %m = norm(add(%residual, %h))        (only if the program reads n, post-norm)
        %z = program(%h, %u, %m, added...)   (one after the other, of several)
        %s = add(%residual, %z);  %n = norm(%s)

    guards: without a reader, all that read the edge are readers (`block`).
    """
    edges = list(uses(capture, plan, HiddenAnchor))
    for use in edges:
        _rewrite(use)
    return len(edges)


def _rewrite(use: Use[HiddenAnchor]) -> None:
    anchor = use.anchor
    old = new = now(use.capture, anchor.h, anchor.reader)
    at = use.inserter(anchor.reader or after(old), anchor.h)
    for program in use.rewrite.programs:
        read = partial(_read, use, at, (old, new))
        new = emit(use.source(program, new, read), at, use.memo(program))
    replace(use.capture, Edit((use.key,), use.targets, old, new, anchor.reader))


def _read(
    use: Use[HiddenAnchor], at: Inserter, h: tuple[fx.Node, fx.Node], name: str
) -> fx.Node:
    old, new = h
    match name:
        case "h":
            return new
        case "u":
            return now(use.capture, use.given("u", use.anchor.u))
        case "n":
            return _normed(use, at, old, new)
        case "real":
            return real_tokens(use.rewrite.site, old, at)
    return use.tensor(name)


def _normed(
    use: Use[HiddenAnchor], at: Inserter, old: fx.Node, new: fx.Node
) -> fx.Node:
    """What the following norm gives for the edge as it is; the edge, before a norm."""
    reader, norm = use.anchor.reader, use.anchor.norm
    if reader is None or norm is None:
        return new
    known = {} if new is old else {old: new}
    return replay(norm, known, (reader, reader), partial(repeated, at))
