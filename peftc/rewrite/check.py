"""Checks that a rewritten graph is what the plan asks for.

In: the plan, what was located, and the graph before or after the passes.  Out: nothing,
or all that is wrong as diagnostics.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics
from peftc.diagnostics.rewrite import (
    EdgeLost,
    NotRewritten,
    OldValueRead,
    SiteNotFoundInGraph,
    TensorUnread,
)
from peftc.expr.program import live
from peftc.rewrite.edit import is_own, now
from peftc.rewrite.insert import BOTH
from peftc.rewrite.positions import START
from peftc.rewrite.print import op_name
from peftc.rewrite.uses import anchors
from peftc.sites.anchors import EmbeddingAnchor, LinearAnchor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from torch import fx

    from peftc.plan.types import Plan, Rewrite
    from peftc.sites.anchors import Anchor, Capture, Edit, Located
    from peftc.view import Site

SAME_WEIGHT = (
    *("t", "transpose", "permute", "getattr", "contiguous", "detach"),
    *("to", "type", "float"),
)
"""Operations through which a weight is still that weight."""

SPLIT = ("split", "chunk", "getitem", "narrow")
"""Operations that give rows of a weight."""

PICKED = ("getitem", "index_select")
"""Operations that give each row the matrix of its expert."""


def check_located(
    plan: Plan,
    located: Mapping[str, Located],
    used: Mapping[str, fx.Node],
    found: Iterable[Located] = (),
) -> None:
    """Every planned site whose weight this graph uses is located, with all its uses.

    `used` maps parameter paths to their placeholders; `found` is all that was found in
    the graph, planned or not.  A site may be missing from a graph that does not use it:
    a sub-entry captures a part of the model, such as the embedding of a tied head.

    Raises:
        PeftcError: with one diagnostic for each site that would be left out.
    """
    errors = Diagnostics()
    anchors = tuple(anchor for one in found for anchor in one.anchors)
    for rewrite in plan.rewrites:
        if rewrite.site.kind == "side":  # it is no rewrite of the graph
            continue
        strays = sorted(set(_strays(rewrite.site, located, used, anchors)))
        if strays:
            users = ", ".join(f"`{name}`" for name in strays)
            errors.add(SiteNotFoundInGraph(site=rewrite.site.place, users=users))
    errors.check()


def _strays(
    site: Site,
    located: Mapping[str, Located],
    used: Mapping[str, fx.Node],
    anchors: tuple[Anchor, ...],
) -> Iterator[str]:
    """The operations that use a site's weight and belong to none of its anchors."""
    known = located.get(site.key)
    if site.kind == "input":  # a graph into which no rows are put may read the table
        return
    if known is None or not known.anchors:
        looked_up = {a.call for a in anchors if isinstance(a, EmbeddingAnchor)}
        others = looked_up if site.kind == "linear" else set()
        for node in _weights(site, used):
            yield from (op_name(r) for r in node.users if r not in others)
    elif site.kind == "linear":
        own = [a for a in known.anchors if isinstance(a, LinearAnchor)]
        calls = {a.call for a in own} | _apart(own, anchors)
        is_split = any(anchor.rows for anchor in own)
        same = SAME_WEIGHT + PICKED * bool(site.experts) + SPLIT * is_split
        for node in _weights(site, used):
            yield from (op_name(reader) for reader in _readers(node, calls, same))


def _apart(own: list[LinearAnchor], anchors: tuple[Anchor, ...]) -> set[fx.Node]:
    """The calls of other rows of a weight that is split before it is used."""
    rows = {anchor.rows for anchor in own}
    others = (a for a in anchors if isinstance(a, LinearAnchor) and a.rows)
    return set() if None in rows else {a.call for a in others if a.rows not in rows}


def _weights(site: Site, used: Mapping[str, fx.Node]) -> list[fx.Node]:
    """The placeholders of a site's weight; without one, of its owner's parameters."""
    names = [name for name in (site.weight, site.tied) if name]
    if not names:
        names = [name for name in used if name.startswith(f"{site.owner}.")]
    return [used[name] for name in names if name in used]


def _readers(
    node: fx.Node, calls: set[fx.Node], same: tuple[str, ...]
) -> Iterator[fx.Node]:
    """Readers of a weight, seen through views of it, that are not among `calls`."""
    for reader in node.users:
        if op_name(reader) in same and reader not in calls:
            yield from _readers(reader, calls, same)
        elif reader not in calls:
            yield reader


def check_rewritten(capture: Capture, plan: Plan) -> None:
    """Every located rewrite was done once for each use, and its values are read.

    Raises:
        PeftcError: with one diagnostic for each miss.
    """
    found = Diagnostics()
    for rewrite in plan.rewrites:
        _check_counts(capture, rewrite, found)
        _check_tensors(capture, rewrite, found)
    for edit in capture.edits:
        _check_edit(capture, edit, found)
    found.check()


def _check_counts(capture: Capture, rewrite: Rewrite, found: Diagnostics) -> None:
    key = rewrite.site.key
    edits = (edit for edit in capture.edits if key in edit.sites)
    done = Counter(target for edit in edits for target in edit.targets)
    wanted = len(anchors(capture, rewrite))
    for target in _targets(rewrite):
        count, place = done[target], rewrite.site.place
        if count != wanted:
            found.add(
                NotRewritten(site=place, target=target, found=count, wanted=wanted)
            )


def _targets(rewrite: Rewrite) -> tuple[str, ...]:
    if rewrite.site.kind == "embedding":
        return (START,)
    return tuple(program.target for program in rewrite.programs)


def _check_tensors(capture: Capture, rewrite: Rewrite, found: Diagnostics) -> None:
    if not anchors(capture, rewrite):
        return
    given = capture.tensors.get(rewrite.site.key, {})
    training = capture.training.get(rewrite.site.key, False)
    for program in rewrite.programs:
        read = live(program, training)
        for name in sorted(read & given.keys()):
            if not given[name].users:
                found.add(TensorUnread(site=rewrite.site.place, tensor=name))


def _check_edit(capture: Capture, edit: Edit, found: Diagnostics) -> None:
    site = BOTH.join(edit.sites)
    if edit.new is edit.old or not edit.sites:
        return
    if edit.reader is not None:
        if now(capture, edit.new, edit.reader) not in edit.reader.all_input_nodes:
            found.add(EdgeLost(site=site))
        return
    for reader in edit.old.users:
        if not is_own(edit, reader):
            name, target = op_name(reader), " and ".join(edit.targets)
            found.add(OldValueRead(site=site, target=target, reader=name))
