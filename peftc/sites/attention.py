"""Attention, as one fused call or spelt out.

In: a graph.  Out: one `Attention` per use with the values that are its query, key and
value, and the value it gives.  Spelt out means two products of activations with a
softmax between: the left operand of the first is the query (the softmax runs over its
columns), the right operand of the second is the value.  Of an `einsum` the letters tell
which operand is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from peftc.sites import contraction as einsum
from peftc.sites import ops

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.sites.linears import Products

_SCORE_STEPS = (
    ops.CASTS
    | ops.DROPOUTS
    | ops.SCALES
    | ops.SUMS
    | frozenset(("tanh", "clamp", "clamp_min", "maximum", "minimum", "max"))
    | frozenset(
        ("masked_fill", "contiguous", "view", "reshape", "cat", "getitem", "where")
    )
)
"""Between scores and softmax: scale, soft cap, mask, sinks; no transposition."""

_WEIGHT_STEPS = (
    ops.CASTS
    | ops.DROPOUTS
    | frozenset(["contiguous", "view", "reshape", "getitem", "mul", "masked_fill"])
)


@dataclass(frozen=True)
class Attention:
    """One attention: where its three inputs enter and its output leaves.

    Spelt out, `scores` is the product of query and key, and `softmax` what it becomes;
    the key is then as that product reads it, [..., head size, tokens].
    """

    query: fx.Node
    key: fx.Node
    value: fx.Node
    out: fx.Node
    scores: fx.Node | None = None
    softmax: fx.Node | None = None

    @property
    def weights(self) -> fx.Node:
        """Spelt out: the left operand of the product that mixes the values."""
        return _factors(self.out)[0]

    @property
    def is_plain(self) -> bool:
        """Whether its products are laid out as those of `matmul`."""
        told = [einsum.contraction(n) for n in (self.scores, self.out) if n is not None]
        return all(one is None or one.is_matmul for one in told)

    @property
    def inputs(self) -> tuple[tuple[str, fx.Node], ...]:
        """The inputs under the role of what makes them."""
        return (("q", self.query), ("k", self.key), ("v", self.value))


def find_attentions(graph: fx.Graph, products: Products) -> tuple[Attention, ...]:
    """The attentions of a graph, in its order."""
    return tuple(_attentions(graph, products))


def _attentions(graph: fx.Graph, products: Products) -> Iterator[Attention]:
    for node in graph.nodes:
        operator = ops.name(node)
        if operator in ops.ATTENTIONS:
            found = _fused(node)
        elif operator == "softmax":
            found = _spelt_out(node, products)
        else:
            found = None
        if found is not None:
            yield found


def _fused(node: fx.Node) -> Attention | None:
    three = [
        ops.argument(node, i, *words)
        for i, words in enumerate((("query", "q"), ("key", "k"), ("value", "v")))
    ]
    if not all(isinstance(n, fx.Node) for n in three):
        return None
    return Attention(three[0], three[1], three[2], node)


def _spelt_out(softmax: fx.Node, products: Products) -> Attention | None:
    scores = _scores(ops.inputs(softmax)[0], products)
    mixed = _mixture(softmax, products)
    if scores is None or mixed is None:
        return None
    product, weights = mixed
    query, key = _factors(scores)
    told = einsum.contraction(scores)
    if told is not None and told.out[-1:] in told.left:
        query, key = key, query
    (value,) = (n for n in _factors(product) if n is not weights)
    return Attention(query, key, value, product, scores, softmax)


def find_mixings(graph: fx.Graph, products: Products) -> frozenset[fx.Node]:
    """The products of two activations."""
    return frozenset(n for n in graph.nodes if _is_mixing(n, products))


def _is_mixing(node: fx.Node, products: Products) -> bool:
    """Whether the node multiplies two activations."""
    if ops.name(node) not in ("matmul", "bmm", "baddbmm", "einsum"):
        return False
    return not products.is_product(node) and len(_factors(node)) == 2


def _factors(node: fx.Node) -> tuple[fx.Node, ...]:
    if ops.name(node) == "einsum":
        return einsum.factors(node)
    first = 1 if ops.name(node) == "baddbmm" else 0
    words = (("input", "batch1"), ("other", "mat2", "batch2"))
    both = [ops.argument(node, first + i, *w) for i, w in enumerate(words)]
    return tuple(n for n in both if isinstance(n, fx.Node))


def _scores(node: fx.Node, products: Products) -> fx.Node | None:
    """The one product of activations that the softmax's input is made of."""
    seen: set[fx.Node] = set()
    todo, hits = [node], []
    while todo:
        node = todo.pop()
        if node in seen:
            continue
        seen.add(node)
        if _is_mixing(node, products):
            hits.append(node)
        elif ops.name(node) in _SCORE_STEPS:
            todo.extend(ops.inputs(node))
    if len(hits) > 1:
        hits = [n for n in hits if all(_is_fed(f, products) for f in _factors(n))]
    return hits[0] if len(hits) == 1 else None


def _is_fed(node: fx.Node, products: Products) -> bool:
    """Whether an input of the model enters a value: positions are made without one."""
    seen: set[fx.Node] = set()
    todo = [node]
    while todo:
        node = todo.pop()
        if node.op == "placeholder" and node not in products.parameters:
            return True
        todo.extend(n for n in ops.inputs(node) if n not in seen)
        seen.update(ops.inputs(node))
    return False


def _mixture(softmax: fx.Node, products: Products) -> tuple[fx.Node, fx.Node] | None:
    """The product whose left operand the softmax becomes, and that operand."""
    seen: set[fx.Node] = set()
    todo, hits = [softmax], []
    while todo:
        node = todo.pop()
        for user in node.users:
            if user in seen:
                continue
            seen.add(user)
            if _is_mixing(user, products):
                if _factors(user)[0] is node or ops.name(user) == "einsum":
                    hits.append((user, node))
            elif ops.name(user) in _WEIGHT_STEPS:
                todo.append(user)
    return hits[0] if len(hits) == 1 else None
