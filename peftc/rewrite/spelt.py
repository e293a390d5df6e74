"""An attention that is spelt out, extended by rows.

In: a use of an attention site whose scores, softmax and mixture are nodes.  Out: the
graph in which the softmax runs over the added rows too.  The base's own keys, values
and masks are not touched, so caches hold what they held before:

    %w = softmax(f(%q @ %k));  %o = g(%w) @ %v
    ->
    %a = softmax(cat(f(%q @ rows), f(%q @ %k)));  %w = %a[.., p:]
    %o = g(%w) @ %v + g(%a[.., :p]) @ values
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch

from peftc.rewrite.columns import carried, chain
from peftc.rewrite.edit import after, now, replace
from peftc.rewrite.insert import example
from peftc.rewrite.slots import add_mixtures, by_heads, emit_rows, scores
from peftc.sites import ops
from peftc.sites.anchors import Edit

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.insert import Inserter
    from peftc.rewrite.slots import Slots
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import AttentionAnchor


def extend_spelt(use: Use[AttentionAnchor]) -> None:
    """Let the softmax of an attention run over the site's rows as well."""
    softmax = use.anchor.attention.softmax
    assert softmax is not None
    at = use.inserter(after(softmax), softmax)
    heads = use.anchor.heads.query
    rows = [by_heads(use, one, heads, at) for one in emit_rows(use, at)]
    columns = [_columns(use, one, at) for one in rows]
    weights = _softmax(use, columns, at)
    count = sum(one.count for one in rows)
    kept = at.put(operator.getitem, weights, (..., slice(count, None)))
    mixed = _mix(use, rows, weights)
    replace(use.capture, Edit((use.key,), use.targets, softmax, kept))
    replace(use.capture, mixed)


def _columns(use: Use[AttentionAnchor], one: Slots, at: Inserter) -> fx.Node:
    """What enters the softmax for the rows of a pair."""
    attention = use.anchor.attention
    product, softmax = attention.scores, attention.softmax
    assert product is not None
    assert softmax is not None
    query = _apart(use, now(use.capture, attention.query), at)
    value = _together(product, scores(query, one, at), at)
    if ops.name(product) == "baddbmm":
        value = at.put(torch.mul, value, product.kwargs.get("alpha", 1))
    return carried(chain(product, ops.inputs(softmax)[0]), value, at)


def _apart(use: Use[AttentionAnchor], node: fx.Node, at: Inserter) -> fx.Node:
    """[b * h, t, _] as [b, h, t, _]."""
    if example(node).dim() == 4:
        return node
    return at.put("unflatten", node, 0, (-1, use.anchor.heads.query))


def _together(like: fx.Node, node: fx.Node, at: Inserter) -> fx.Node:
    """[b, h, t, _] with the leading axes of `like`."""
    return node if example(like).dim() == 4 else at.put(torch.flatten, node, 0, 1)


def _softmax(
    use: Use[AttentionAnchor], columns: list[fx.Node], at: Inserter
) -> fx.Node:
    """The softmax over added and own columns."""
    softmax = use.anchor.attention.softmax
    assert softmax is not None
    first = ops.inputs(softmax)[0]
    own = now(use.capture, first)
    added = [at.cast(node, example(own).dtype) for node in columns]
    whole = at.put(torch.cat, [*added, own], -1)
    args, kwargs = torch.fx.node.map_arg(
        (softmax.args, softmax.kwargs), lambda n: whole if n is first else n
    )
    return at.put(softmax.target, *args, **kwargs)


def _mix(use: Use[AttentionAnchor], rows: list[Slots], weights: fx.Node) -> Edit:
    """Add to the mixture what the rows contribute, by their part of the weights."""
    attention = use.anchor.attention
    softmax, out = attention.softmax, now(use.capture, attention.out)
    assert softmax is not None
    at = use.inserter(after(out), out)
    count = sum(one.count for one in rows)
    added = at.put(operator.getitem, weights, (..., slice(0, count)))
    added = carried(chain(softmax, attention.weights), added, at)
    total = add_mixtures(_apart(use, out, at), _apart(use, added, at), rows, at)
    return Edit((use.key,), (), out, _together(out, total, at))
