"""Where sublayers add to the residual stream.

In: a graph, its products and attentions.  Out: `Addition`s in forward order, each with
its branches.

An addition is `r + f(r)`: a tree of sums of one shape in which one leaf, `r`, leads to
all the others through products with parameters.  The tree matters for parallel
sublayers (`mlp + attn + r`, `dropout(mlp + attn) + r`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from peftc.sites import ops
from peftc.sites.attention import find_mixings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.flow import Flow
    from peftc.sites.linears import Products
    from peftc.sites.norms import Norm

_SCALED = ops.TRANSPARENT | ops.SCALES
_JOINT = ops.DROPOUTS | ops.CASTS


@dataclass(frozen=True)
class Branch:
    """One sublayer's output `leaf`, read by the sum `reader`."""

    leaf: fx.Node
    reader: fx.Node
    nodes: frozenset[fx.Node]
    """What lies between the residual and the leaf."""
    attentions: tuple[Attention, ...]


@dataclass(frozen=True)
class Addition:
    """One `r + f(r)`: the sum, r as it is added, r as the branches read it."""

    sum: fx.Node
    base: fx.Node
    origin: fx.Node
    branches: tuple[Branch, ...]
    norm: Norm | None = None
    """In a post-LN block: the norm that alone reads the sum."""

    @property
    def value(self) -> fx.Node:
        """The residual value after this addition."""
        return self.sum if self.norm is None else self.norm.y


@dataclass(frozen=True)
class _Sources:
    """What the values of a graph come from."""

    flow: Flow
    products: Products
    attentions: tuple[Attention, ...]
    outs: frozenset[fx.Node]
    mixings: frozenset[fx.Node]

    def is_sublayer(self, leaf: fx.Node, way: frozenset[fx.Node]) -> bool:
        """Whether a leaf is made by products with parameters, or an attention, last.

        Attention scores are sums too, and a position bias leads to the scores of the
        next layer; but their last product is one of activations.
        """
        ends = self.products.is_product
        met = self.flow.back(leaf, lambda n: n not in way or n in self.outs or ends(n))
        return any(map(ends, way)) and not met & way & self.mixings


def find_additions(
    graph: fx.Graph,
    flow: Flow,
    products: Products,
    attentions: tuple[Attention, ...],
) -> tuple[Addition, ...]:
    """The additions of a graph, in its order."""
    outs = frozenset(attention.out for attention in attentions)
    mixings = find_mixings(graph, products) - outs
    sources = _Sources(flow, products, attentions, outs, mixings)
    sums = (n for n in graph.nodes if ops.is_sum(n) and not _is_inner(n))
    return tuple(filter(None, (_addition(node, sources) for node in sums)))


def _is_inner(node: fx.Node) -> bool:
    """Whether one other sum alone reads the value, dropped out before or not."""
    if len(node.users) != 1:
        return False
    (reader,) = node.users
    return ops.is_sum(reader) or (ops.name(reader) in _JOINT and _is_inner(reader))


def _total(node: fx.Node) -> fx.Node:
    """The sum that a value is, before what is done to the sum as a whole."""
    while ops.name(node) in _JOINT and len(ops.inputs(node)[0].users) == 1:
        node = ops.inputs(node)[0]
    return node


def leaves(node: fx.Node) -> Iterator[fx.Node]:
    """What a sum adds up, sums that only it reads taken apart; else the node itself."""
    total = _total(node)
    if not ops.is_sum(total):
        yield node
        return
    for operand in ops.operands(total):
        if _is_inner(operand):
            yield from leaves(operand)
        else:
            yield operand


def _addition(node: fx.Node, sources: _Sources) -> Addition | None:
    order = sources.flow.order
    origins = {leaf: _origins(leaf, order) for leaf in leaves(node)}
    base = min(origins, key=lambda leaf: min(map(order.__getitem__, origins[leaf])))
    others = [leaf for leaf in origins if leaf is not base]
    for origin in origins[base]:
        ways = {leaf: sources.flow.between(origin, leaf, node) for leaf in others}
        if ways and all(sources.is_sublayer(*leaf_way) for leaf_way in ways.items()):
            branches = tuple(_branches(node, base, ways, sources.attentions))
            return Addition(node, base, origin, branches)
    return None


def _origins(base: fx.Node, order: dict[fx.Node, int]) -> tuple[fx.Node, ...]:
    """What a branch may start from: the value added, what it is a scaled or rounded
    copy of, then all that it is put together from, the latest first."""
    found = [base]
    while ops.name(base) in _SCALED and ops.is_unary(base):
        base = ops.inputs(base)[0]
        found.append(base)
    pieces: set[fx.Node] = set()
    todo = found[-1:]
    while todo:
        node = todo.pop()
        if node not in pieces and _is_laid_out(node):
            todo.extend(ops.inputs(node))
        pieces.add(node)
    late_first = sorted(pieces, key=order.__getitem__, reverse=True)
    return tuple(dict.fromkeys((*found, *late_first)))


def _is_laid_out(node: fx.Node) -> bool:
    """Whether the value is made of parts of others, scaled by numbers at most."""
    operator = ops.name(node)
    is_scaled = operator in _SCALED and ops.is_unary(node)
    return is_scaled or operator in ops.PIECES | ops.JOINS


def _branches(
    node: fx.Node,
    base: fx.Node,
    ways: dict[fx.Node, frozenset[fx.Node]],
    attentions: tuple[Attention, ...],
) -> Iterator[Branch]:
    """The edges of a tree of sums: a part without `base` that is all attention or all
    not (routed and shared experts) is one edge."""
    for operand in ops.operands(node):
        if operand is base:
            continue
        parts = [operand] if operand in ways else list(leaves(operand))
        inside = [
            [a for a in attentions if a.out in ways[leaf]]
            for leaf in parts
            if leaf in ways
        ]
        if base in parts or len(set(map(bool, inside))) > 1:
            yield from _branches(_total(operand), base, ways, attentions)
        else:
            way = frozenset((operand,)).union(*(ways[leaf] for leaf in parts))
            yield Branch(operand, node, way, tuple(chain.from_iterable(inside)))
