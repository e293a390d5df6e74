"""Rewrite hidden edges: a sublayer's output as its residual add reads it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from peftc.pipeline import Fact, graph_pass
from peftc.rewrite.edit import after, now, replace
from peftc.rewrite.emit import emit
from peftc.rewrite.insert import example, replay
from peftc.rewrite.linear import repeated
from peftc.rewrite.real import real_tokens
from peftc.rewrite.together import joint_programs, program_of, step_of, types_of
from peftc.rewrite.uses import Use, uses
from peftc.sites.anchors import Edit, HiddenAnchor

if TYPE_CHECKING:
    from torch import fx

    from peftc.expr.joint_program import JointProgram
    from peftc.plan.types import Plan
    from peftc.rewrite.insert import Inserter
    from peftc.rewrite.together import Programs
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

    guards: without a reader, all that read the edge are readers (`block`).  A program
    of h and u alone is one node, forward and backward planned together, as linears are.
    """
    edges = list(uses(capture, plan, HiddenAnchor))
    programs = joint_programs(plan, capture) if edges else {}
    for use in edges:
        _rewrite(use, programs)
    return len(edges)


def _rewrite(use: Use[HiddenAnchor], programs: Programs) -> None:
    anchor = use.anchor
    old = now(use.capture, anchor.h, anchor.reader)
    at = use.inserter(anchor.reader or after(old), anchor.h)
    new = _as_step(use, at, old, program_of(use, programs)) or _apart(use, at, old)
    replace(use.capture, Edit((use.key,), use.targets, old, new, anchor.reader))


def _as_step(
    use: Use[HiddenAnchor], at: Inserter, old: fx.Node, program: JointProgram | None
) -> fx.Node | None:
    """What replaces the edge as one step of autograd, if it can be one."""
    if program is None:
        return None
    read = partial(_read, use, at, (old, old))
    base = [read(one.name) for one in program.inputs if one.name in ("h", "u")]
    types = types_of(use, program, base)
    if types is None or any(not _is_like(old, node) for node in base):
        return None
    step = step_of((program,), (False,), types, use.capture.steps)
    return at.put_as(example(old), step, *map(read, step.inputs))


def _is_like(old: fx.Node, node: fx.Node) -> bool:
    """Whether a value has the edge's tokens."""
    return example(node).shape[:-1] == example(old).shape[:-1]


def _apart(use: Use[HiddenAnchor], at: Inserter, old: fx.Node) -> fx.Node:
    """The same by separate operations."""
    new = old
    for program in use.rewrite.programs:
        read = partial(_read, use, at, (old, new))
        new = emit(use.source(program, new, read), at, use.memo(program))
    return new


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
