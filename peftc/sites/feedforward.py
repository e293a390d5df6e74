"""The parts of a feed-forward sublayer: gate, up and down.

In: a branch of an addition.  Out: `FeedForward`.  `down` is the one linear that the
branch's output comes from; `up` and `gate` are the linears whose outputs become its
input by elementwise operators alone.  Where two of them (or two pieces of one) are
multiplied, the factor that went through the stronger nonlinearity is the gate: a clamp
is weaker than any other.  The parts of stacked experts are stacks all three.
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

_CLAMPS = frozenset(("clamp", "clamp_min", "clamp_max"))
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

    @property
    def first(self) -> tuple[Part, ...]:
        """What makes the input of `down`."""
        return (self.up,) if self.gate is None else (self.up, self.gate)


Source: TypeAlias = "tuple[fx.Node, str]"
"""A linear's node, and the piece of its output as it is taken; "" for the whole."""


@dataclass(frozen=True)
class _Trace:
    """Where a value comes from, and how far it is from linear in that: 0 linear, 1 by
    clamps alone."""

    sources: frozenset[Source]
    bent: int


def plain_block(branch: Branch, flow: Flow, products: Products) -> FeedForward | str:
    """The parts of a branch, or why they are not told."""
    leaf = branch.leaf
    last = producers(leaf, branch.nodes, flow, products)
    if products.is_product(leaf):  # and what is added to it in place is another part
        last = (leaf,)
    # A linear to one channel (how much of a shared expert) only scales the others.
    wide = [n for n in last or () if ops.shape(n)[-1:] == ops.shape(leaf)[-1:]]
    last = tuple(wide) if len(wide) == 1 else last
    if last is None or len(last) != 1 or last[0] not in products.linears:
        return "its output does not come from one linear by elementwise operators"
    told = _before(products.linears[last[0]], branch, flow, products)
    if isinstance(told, str):
        return told
    xs = (part.linear.anchor.x for part in told.first)
    if any(producers(x, branch.nodes, flow, products) != () for x in xs):
        return "more than two linears follow each other"
    return told


def expert_blocks(
    branch: Branch, flow: Flow, products: Products
) -> tuple[FeedForward, ...]:
    """The feed-forwards whose linears are stacks, in order."""
    stacks = [n for n in branch.nodes if n in products.linears]
    found = []
    for node in sorted(stacks, key=flow.order.__getitem__):
        down = products.linears[node]
        told = _before(down, branch, flow, products) if down.experts else ""
        if isinstance(told, FeedForward):
            is_block = all(p.linear.experts == down.experts for p in told.first)
            found += [told] if is_block else []
    return tuple(found)


def _before(
    down: Linear, branch: Branch, flow: Flow, products: Products
) -> FeedForward | str:
    """The linears that make the input of `down`, or why they are not told."""
    first = producers(down.anchor.x, branch.nodes, flow, products)
    if not first or any(n not in products.linears for n in first):
        return "its inner values do not come from linears by elementwise operators"
    linears = tuple(products.linears[n] for n in first)
    return _gated(down, linears, branch, flow)


def producers(
    value: fx.Node, within: frozenset[fx.Node], flow: Flow, products: Products
) -> tuple[fx.Node, ...] | None:
    """The products that a value is made from by elementwise operators, in order.

    None if another operator lies between; convolutions that mix no channels may.
    """
    picks = products.picks
    ends = (products.is_product, picks.__contains__, lambda n: n not in within)

    def is_end(node: fx.Node) -> bool:
        return not ops.is_depthwise(node) and any(end(node) for end in ends)

    met = flow.back(value, is_end)
    inner = (met & within) - picks
    hits = {n for n in inner if products.is_product(n) and is_end(n)}
    if not all(ops.is_pointwise(n) or ops.is_depthwise(n) for n in inner - hits):
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
            traces[node] = _Trace(frozenset(((node, ""),)), bent=0)
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
    return _Trace(sources, max(_bends(node, before), *(t.bent for t in before)))


def _bends(node: fx.Node, before: list[_Trace]) -> int:
    """How strong a nonlinearity a node is."""
    if ops.name(node) in _CLAMPS:
        return 1
    return 2 if ops.name(node) in _BENDING or len(before) > 1 else 0


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
    """The more and the less bent factor of a product of values of two sources."""
    if ops.name(node) != "mul":
        return None
    both = [n for n in ops.inputs(node) if n in traces]
    if len(both) != 2 or any(len(traces[n].sources) != 1 for n in both):
        return None
    if traces[both[0]].sources == traces[both[1]].sources:
        return None
    straight, bent = sorted(both, key=lambda n: traces[n].bent)
    return (bent, straight) if traces[straight].bent < traces[bent].bent else None
