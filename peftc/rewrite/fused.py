"""An attention that is one call, extended by rows.

In: a use of an attention site that is one fused call.  Out: the call on longer keys and
values.  The kernel stays usable: a mask gets columns of true or zero; without a mask
the call stays without one, and a causal call stays causal, because as many rows of
zeros go before the queries, whose results are cut off:

    %o = attention(%q, %k, %v, causal)
    ->
    %o = attention(cat(zeros, %q), cat(rows, %k), cat(values, %v), causal)[.., p:, :]

Where that is as fast, the rows stay beside the call instead (`rewrite/beside.py`).
Where each query has rows of its own no kernel fits, and the call is spelt out.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import AttentionNotExtended
from peftc.rewrite.beside import emit_beside
from peftc.rewrite.edit import after, now, replace
from peftc.rewrite.insert import example, length
from peftc.rewrite.slots import (
    QUERY,
    add_mixtures,
    by_heads,
    emit_rows,
    lead_of,
    scores,
)
from peftc.sites import ops
from peftc.sites.anchors import Edit

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.insert import Inserter
    from peftc.rewrite.slots import Rows
    from peftc.rewrite.uses import Use
    from peftc.sites.anchors import AttentionAnchor

CALL = "scaled_dot_product_attention"
"""The call whose masks and scores are known here."""

DEFAULTS = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False}
"""What follows query, key and value; the rest is by name only."""


@dataclass(frozen=True)
class Call:
    """The arguments of a fused call, as they are after the edits so far."""

    query: fx.Node
    key: fx.Node
    value: fx.Node
    options: dict[str, Any]

    @property
    def mask(self) -> fx.Node | None:
        """The mask that is given."""
        mask = self.options["attn_mask"]
        return mask if isinstance(mask, torch.fx.Node) else None

    @property
    def scale(self) -> float:
        """What scores are multiplied by."""
        given = self.options.get("scale")
        return 1 / math.sqrt(example(self.query).shape[-1]) if given is None else given


def extend_fused(use: Use[AttentionAnchor]) -> None:
    """Let a fused attention attend to the site's rows as well.

    Raises:
        PeftcError: if it is a call of a kind that cannot be extended.
    """
    out = use.anchor.attention.out
    if ops.name(out) != CALL:
        raise fail(AttentionNotExtended(site=use.rewrite.site.place, op=ops.name(out)))
    at = use.inserter(after(out), out)
    call, rows = _call(use), emit_rows(use, at)
    if any(lead_of(one) == QUERY for one in rows):
        new = _spelt_out(use, call, rows, at)
    else:
        beside = emit_beside(use, call, rows, at)
        new = _longer(use, call, rows, at) if beside is None else beside
    replace(use.capture, Edit((use.key,), use.targets, out, new))


def _call(use: Use[AttentionAnchor]) -> Call:
    attention = use.anchor.attention
    node = attention.out
    given = dict(zip(DEFAULTS, node.args[3:], strict=False))
    named = {k: v for k, v in node.kwargs.items() if k not in ("query", "key", "value")}
    inputs = (attention.query, attention.key, attention.value)
    query, key, value = (now(use.capture, one) for one in inputs)
    return Call(query, key, value, {**DEFAULTS, **given, **named})


# --- one call ------------------------------------------------------------------------


def _longer(
    use: Use[AttentionAnchor], call: Call, rows: list[Rows], at: Inserter
) -> fx.Node:
    """The call on keys and values with rows before them."""
    made = [by_heads(use, one, use.anchor.heads.shared, at) for one in rows]
    count = sum(one.count for one in made)
    key = _before(call.key, [one.keys for one in made], at)
    value = _before(call.value, [one.values for one in made], at)
    query, options = call.query, call.options
    if call.mask is not None:
        options = {**options, "attn_mask": _wider(call, count, at)}
    elif options["is_causal"]:
        query = at.put(F.pad, query, (0, 0, count, 0))
    target: Any = use.anchor.attention.out.target
    out = at.put(target, query, key, value, **options)
    if query is call.query:
        return out
    return at.put(operator.getitem, out, (..., slice(count, None), slice(None)))


def _before(own: fx.Node, rows: list[fx.Node], at: Inserter) -> fx.Node:
    """[b, h, s, d] with rows, [h, p, d] or [b, h, p, d], before it."""
    size = length(own, 0, at)
    spread = [at.put("expand", node, (size, -1, -1, -1)) for node in rows]
    return at.put(torch.cat, [*spread, own], -2)


def _wider(call: Call, count: int, at: Inserter) -> fx.Node:
    """The mask with columns before it that hide nothing."""
    mask = call.mask
    assert mask is not None
    if example(mask).shape[-1] == 1:  # one column for all keys
        kept = (-1,) * (example(mask).dim() - 1)
        mask = at.put("expand", mask, (*kept, length(call.key, -2, at)))
    seen = True if example(mask).dtype is torch.bool else 0.0
    return at.put(F.pad, mask, (count, 0), "constant", seen)


# --- spelt out -----------------------------------------------------------------------


def _spelt_out(
    use: Use[AttentionAnchor], call: Call, rows: list[Rows], at: Inserter
) -> fx.Node:
    """The call as products and a softmax, with columns for each query's own rows."""
    heads = use.anchor.heads.query
    made = [by_heads(use, one, heads, at) for one in rows]
    key, value = (_each_head(node, heads, at) for node in (call.key, call.value))
    own = at.put(torch.matmul, call.query, at.put(torch.transpose, key, -1, -2))
    own = _masked(at.put(torch.mul, own, call.scale), call, at)
    added = [at.put(torch.mul, scores(call.query, one, at), call.scale) for one in made]
    whole = at.put(torch.cat, [*added, own], -1)
    weights = at.put(torch.softmax, whole, -1, dtype=torch.float32)
    weights = at.put("to", weights, example(call.query).dtype)
    if call.options["dropout_p"]:
        weights = at.put(F.dropout, weights, call.options["dropout_p"], True)
    count = sum(one.count for one in made)
    rest = at.put(operator.getitem, weights, (..., slice(count, None)))
    return add_mixtures(at.put(torch.matmul, rest, value), weights, made, at)


def _each_head(node: fx.Node, heads: int, at: Inserter) -> fx.Node:
    """Keys or values repeated, where the call would have repeated them."""
    count = int(example(node).shape[1])
    if count in (1, heads):
        return node
    return at.put(torch.repeat_interleave, node, heads // count, 1)


def _masked(own: fx.Node, call: Call, at: Inserter) -> fx.Node:
    mask = call.mask
    if mask is None and not call.options["is_causal"]:
        return own
    if mask is None:
        ones = at.put(torch.ones_like, own, dtype=torch.bool)
        mask = at.put(torch.tril, ones)
    if example(mask).dtype is not torch.bool:
        return at.put(torch.add, own, mask)
    hidden = at.put(torch.logical_not, mask)
    return at.put("masked_fill", own, hidden, -math.inf)
