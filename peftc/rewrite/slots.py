"""The rows that an attention is extended by, as its products want them.

In: the pairs of programs of an attention site.  Out: their rows, emitted, and `Slots`:
rows laid out by heads.  Letters: b samples, t queries, p rows, h heads, d the
width of one head.  A pair's rows are the same for all samples, [h, p, d]; for all
queries of a sample, [b, h, p, d]; or each query's own, [b, h, t, p, d].
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import RowsPerQuery
from peftc.rewrite.edit import now
from peftc.rewrite.emit import emit_value
from peftc.rewrite.insert import example
from peftc.rewrite.real import real_tokens

if TYPE_CHECKING:
    from torch import fx

    from peftc.expr.program import Program
    from peftc.rewrite.insert import Inserter
    from peftc.rewrite.uses import Use
    from peftc.rewrite.values import Value
    from peftc.sites.anchors import AttentionAnchor

SHARED, SAMPLE, QUERY = "", "b", "bt"
"""What rows are the same for."""


Rows = tuple["Value", "Value"]
"""Keys and values of one pair of programs, [*lead, p, shared heads * d]."""


@dataclass(frozen=True)
class Slots:
    """The rows of one pair of programs, by heads; `count` is p."""

    keys: fx.Node
    values: fx.Node
    lead: str
    count: int


def emit_rows(use: Use[AttentionAnchor], at: Inserter) -> list[Rows]:
    """Emit the programs of a site, in pairs: those for keys and values alternate.

    Raises:
        PeftcError: if queries have rows of their own and are not the tokens that the
            sublayer reads.
    """
    programs = use.rewrite.programs
    found = [
        (_emit(use, keys, at), _emit(use, values, at))
        for keys, values in zip(programs[::2], programs[1::2], strict=True)
    ]
    if any(lead_of(rows) == QUERY for rows in found):
        _check_queries(use)
    return found


def _emit(use: Use[AttentionAnchor], program: Program, at: Inserter) -> Value:
    attention = use.anchor.attention
    into = attention.key if program.target.startswith("k") else attention.value
    source = use.source(program, into, partial(_read, use, at))
    return emit_value(source, at, use.memo(program))


def _read(use: Use[AttentionAnchor], at: Inserter, name: str) -> fx.Node:
    if name == "u":
        return now(use.capture, use.given("u", use.anchor.u))
    if name == "real":
        u = use.given("u", use.anchor.u)
        return real_tokens(use.rewrite.site, u, at)
    return use.tensor(name)


def lead_of(rows: Rows) -> str:
    """What a pair is the same for."""
    return max(map(_lead, rows), key=len)


def _lead(value: Value) -> str:
    return QUERY if value.lead == "*" else value.lead


def _check_queries(use: Use[AttentionAnchor]) -> None:
    """Rows of each query need queries that are the tokens of the sublayer's input."""
    tokens = example(use.given("u", use.anchor.u))
    queries = example(use.anchor.attention.query)
    if tokens.dim() != 3 or tokens.shape[1] != queries.shape[-2]:
        raise fail(RowsPerQuery(site=use.rewrite.site.place))


def by_heads(use: Use[AttentionAnchor], rows: Rows, heads: int, at: Inserter) -> Slots:
    """Lay a pair out for a product of `heads` heads."""
    lead = lead_of(rows)
    shared = use.rewrite.site.size("kv_heads")
    keys, values = (_by_heads(v, lead, (shared, heads), at) for v in rows)
    return Slots(keys, values, lead, rows[0].shape[0])


def _by_heads(value: Value, lead: str, heads: tuple[int, int], at: Inserter) -> fx.Node:
    """[*lead, p, width] as [b?, h, t?, p, d]."""
    shared, wanted = heads
    node, own = value.node, _lead(value)
    for place in range(len(own), len(lead)):
        node = at.put(torch.unsqueeze, node, place)
    axis = min(1, len(lead))
    node = at.put("unflatten", node, -1, (shared, -1))
    node = at.put(torch.movedim, node, -2, axis)
    if wanted != shared:
        node = at.put(torch.repeat_interleave, node, wanted // shared, axis)
    return node


def scores(query: fx.Node, one: Slots, at: Inserter) -> fx.Node:
    """Products of queries [b, h, t, d] and the keys of a pair: [b, h, t, p]."""
    keys = at.put(torch.transpose, one.keys, -1, -2)
    if one.lead != QUERY:
        return at.put(torch.matmul, query, keys)
    query = at.put(torch.unsqueeze, query, -2)
    return at.put(torch.squeeze, at.put(torch.matmul, query, keys), -2)


def add_mixtures(
    total: fx.Node, weights: fx.Node, rows: list[Slots], at: Inserter
) -> fx.Node:
    """`total` and what all pairs contribute, by weights [b, h, t, all p, ...]."""
    start = 0
    for one in rows:
        part = at.put(operator.getitem, weights, (..., slice(start, start + one.count)))
        part = at.cast(part, example(one.values).dtype)
        total = at.put(torch.add, total, _mixture(part, one, at))
        start += one.count
    return total


def _mixture(weights: fx.Node, one: Slots, at: Inserter) -> fx.Node:
    """Values of a pair by weights [b, h, t, p]: [b, h, t, d]."""
    if one.lead != QUERY:
        return at.put(torch.matmul, weights, one.values)
    weights = at.put(torch.unsqueeze, weights, -2)
    return at.put(torch.squeeze, at.put(torch.matmul, weights, one.values), -2)
