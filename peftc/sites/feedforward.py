"""The parts of a feed-forward sublayer: gate, up and down.

In: a branch of an addition.  Out: `FeedForward`.  `down` is the one linear that the
branch's output comes from; `up` and `gate` are the linears whose outputs become its
input by elementwise operators alone.  Where two of them (or two pieces of one) are
multiplied, the factor that went through a nonlinearity is the gate.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from peftc.sites import ops

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.flow import Flow
    from peftc.sites.linears import Linear, Products
    from peftc.sites.residual import Branch

_BENDING = ops.ACTIVATIONS | ops.NORMS | {ops.FUNCTION}


@dataclass(frozen=True)
class Part:
    """A linear, and the value in which only the channels of its role are left."""

    linear: Linear
    value: fx.Node


@dataclass(frozen=True)
class FeedForward:
    """A feed-forward; in a plain one there is no gate.  `gate` and `up` can be pieces
    of one linear."""

    down: Linear
    up: Part
    gate: Part | None = None


Source: TypeAlias = "tuple[fx.Node, str]"
"""A linear's node, and the piece of its output as it is taken; "" for the whole."""


@dataclass(frozen=True)
class _Trace:
    """Where a value comes from, and whether through a nonlinearity."""

    sources: frozenset[Source]
    bent: bool


def feed_forward(branch: Branch, flow: Flow, products: Products) -> FeedForward | str:
    """The parts of a branch, or why they are not told."""
    last = producers(branch.leaf, branch.nodes, flow, products)
    if last is None or len(last) != 1 or last[0] not in products.linears:
        return "its output does not come from one linear by elementwise operators"
    down = products.linears[last[0]]
    first = producers(down.anchor.x, branch.nodes, flow, products)
    if not first or any(n not in products.linears for n in first):
        return "its inner values do not come from linears by elementwise operators"
    linears = tuple(products.linears[n] for n in first)
    if any(producers(n.anchor.x, branch.nodes, flow, products) != () for n in linears):
        return "more than two linears follow each other"
    return _gated(down, linears, branch, flow)


def producers(
    value: fx.Node, within: frozenset[fx.Node], flow: Flow, products: Products
) -> tuple[fx.Node, ...] | None:
    """The products that a value is made from by elementwise operators, in order.

    None if another operator lies between.
    """
    met = flow.back(value, lambda n: products.is_product(n) or n not in within)
    inner = met & within
    hits = {n for n in inner if products.is_product(n)}
    if not all(map(ops.is_pointwise, inner - hits)):
        return None
    return tuple(sorted(hits, key=flow.order.__getitem__))


def _gated(
    down: Linear, linears: tuple[Linear, ...], branch: Branch, flow: Flow
) -> FeedForward | str:
    traces = _traces(down, linears, branch, flow)
    factors = [f for node in traces if (f := _factors(node, traces)) is not None]
    if not factors and len(linears) == 1:
        return FeedForward(down, Part(linears[0], linears[0].anchor.y))
    if len(factors) != 1:
        return f"{len(linears)} linears and {len(factors)} products of their outputs"
    bent, straight = factors[0]
    both = traces[bent].sources | traces[straight].sources
    if traces[down.anchor.x].sources != both:
        return f"{len(linears)} linears, of which a product joins two"
    by_call = {linear.call: linear for linear in linears}
    (gate,), (up,) = traces[bent].sources, traces[straight].sources
    return FeedForward(
        down, Part(by_call[up[0]], straight), Part(by_call[gate[0]], bent)
    )


def _traces(
    down: Linear, linears: tuple[Linear, ...], branch: Branch, flow: Flow
) -> dict[fx.Node, _Trace]:
    calls = {linear.call: linear for linear in linears}
    met = flow.back(down.anchor.x, lambda n: n in calls or n not in branch.nodes)
    traces: dict[fx.Node, _Trace] = {}
    for node in sorted(met, key=flow.order.__getitem__):
        if node in calls:
            traces[node] = _Trace(frozenset(((node, ""),)), bent=False)
        elif any(n in traces for n in ops.inputs(node)):
            traces[node] = _step(node, traces, calls)
    return traces


def _step(
    node: fx.Node, traces: dict[fx.Node, _Trace], calls: dict[fx.Node, Linear]
) -> _Trace:
    before = [traces[n] for n in ops.inputs(node) if n in traces]
    sources = frozenset(s for trace in before for s in trace.sources)
    if ops.name(node) in ops.PIECES:
        sources = frozenset(_piece(node, source, calls) for source in sources)
    bends = ops.name(node) in _BENDING or len(before) > 1
    return _Trace(sources, bends or any(trace.bent for trace in before))


def _piece(node: fx.Node, source: Source, calls: dict[fx.Node, Linear]) -> Source:
    call, piece = source
    whole = prod(ops.shape(calls[call].anchor.y))
    is_part = ops.shape(node) != () and prod(ops.shape(node)) < whole
    if piece or not is_part:
        return source
    # As text: models take the same piece twice.
    return call, f"{node.target} {node.args} {node.kwargs}"


def _factors(
    node: fx.Node, traces: dict[fx.Node, _Trace]
) -> tuple[fx.Node, fx.Node] | None:
    """The bent and the straight factor of a product of values of two sources."""
    if ops.name(node) != "mul":
        return None
    both = [n for n in ops.inputs(node) if n in traces]
    if len(both) != 2 or any(len(traces[n].sources) != 1 for n in both):
        return None
    if traces[both[0]].sources == traces[both[1]].sources:
        return None
    bent = [n for n in both if traces[n].bent]
    straight = [n for n in both if not traces[n].bent]
    return (bent[0], straight[0]) if len(bent) == len(straight) == 1 else None
