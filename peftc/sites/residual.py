"""Where sublayers add to the residual stream.

In: a graph, its products and attentions.  Out: `Addition`s in forward order, each with
its branches.

An addition is `r + f(r)`: a tree of sums of one shape in which one leaf, `r`, leads to
all the others through products with parameters.  The tree matters for parallel
sublayers (`mlp + attn + r`, `dropout(mlp + attn) + r`).  A sum with what an addition
gives as it is (a connection that skips over layers) is no addition.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from peftc.sites import ops
from peftc.sites.attention import find_mixings
from peftc.sites.flow import strip

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
    mixers: frozenset[fx.Node] = frozenset()
    """What mixes tokens and is no attention."""


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
    sums: set[fx.Node]
    """Of the additions so far."""

    def is_sublayer(self, leaf: fx.Node, way: frozenset[fx.Node]) -> bool:
        """Whether a leaf is made by products with parameters, an attention, or what
        mixes tokens without either, last.

        Attention scores are sums too, and a position bias leads to the scores of the
        next layer; but their last product is one of activations.
        """
        ends = self.products.is_product
        met = self.flow.back(leaf, lambda n: n not in way or n in self.outs or ends(n))
        makes = any(ends(node) or ops.mixes_tokens(node) for node in way)
        return makes and not met & way & (self.mixings | self.sums)

    def mixers(self, way: frozenset[fx.Node], attends: bool) -> frozenset[fx.Node]:
        """What mixes tokens on a way: products of activations count where there is no
        attention, and no choice whose weights they apply (experts)."""
        told = frozenset(n for n in way if ops.mixes_tokens(n))
        is_plain = not attends and not any(ops.name(n) in ops.CHOICES for n in way)
        return told | (way & self.mixings) if is_plain else told


def find_additions(
    graph: fx.Graph,
    flow: Flow,
    products: Products,
    attentions: tuple[Attention, ...],
) -> tuple[Addition, ...]:
    """The additions of a graph, in its order."""
    outs = frozenset(attention.out for attention in attentions)
    mixings = find_mixings(graph, products) - outs
    sources = _Sources(flow, products, attentions, outs, mixings, set())
    found: list[Addition] = []
    for node in graph.nodes:
        if _is_residual(node, products) and not _is_inner(node):
            new = tuple(_additions(node, sources))
            sources.sums.update(addition.sum for addition in new)
            found += new
    return tuple(sorted(found, key=lambda addition: flow.order[addition.sum]))


def _is_residual(node: fx.Node, products: Products) -> bool:
    """Whether a node is a sum, but not of rows and the biases of their experts."""
    return ops.is_sum(node) and products.picks.isdisjoint(ops.inputs(node))


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


def _additions(node: fx.Node, sources: _Sources) -> Iterator[Addition]:
    """The addition that a tree of sums is, or those that its parts are."""
    whole = _addition(node, sources)
    if whole is not None:
        yield whole
        return
    for part in (_total(operand) for operand in ops.operands(node)):
        if ops.is_sum(part) and _is_inner(part):
            yield from _additions(part, sources)


def parts(node: fx.Node, flow: Flow) -> Iterator[fx.Node]:
    """What a value is the sum of: as `leaves`, behind views, and with what is added to
    it in place."""
    total = strip(node, ops.TRANSPARENT)
    added = [n for n in flow.writers.get(total, ()) if ops.name(n) == "add"]
    if added:
        yield total
        yield from (ops.operands(n)[1] for n in added)
    elif ops.is_sum(total) and len(total.users) == 1:
        for leaf in leaves(total):
            yield from parts(leaf, flow)
    else:
        yield node


def _addition(node: fx.Node, sources: _Sources) -> Addition | None:
    order = sources.flow.order
    origins = {leaf: _origins(leaf, order) for leaf in leaves(node)}
    base = min(origins, key=lambda leaf: min(map(order.__getitem__, origins[leaf])))
    others = [leaf for leaf in origins if leaf is not base]
    for origin in origins[base]:
        ways = {leaf: sources.flow.between(origin, leaf, node) for leaf in others}
        if ways and all(sources.is_sublayer(*leaf_way) for leaf_way in ways.items()):
            branches = tuple(_branches(node, base, ways, sources))
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
    sources: _Sources,
) -> Iterator[Branch]:
    """The edges of a tree of sums: a part without `base` that is all attention or all
    not (routed and shared experts) is one edge."""
    for operand in ops.operands(node):
        if operand is base:
            continue
        parts = [operand] if operand in ways else list(leaves(operand))
        inside = [
            [a for a in sources.attentions if a.out in ways[leaf]]
            for leaf in parts
            if leaf in ways
        ]
        if base in parts or len(set(map(bool, inside))) > 1:
            yield from _branches(_total(operand), base, ways, sources)
        else:
            way = frozenset((operand,)).union(*(ways[leaf] for leaf in parts))
            told = tuple(chain.from_iterable(inside))
            yield Branch(operand, node, way, told, sources.mixers(way, bool(told)))
