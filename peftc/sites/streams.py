"""Streams of additions, and the layers they are made of.

In: the additions of a graph.  Out: `Stream`s, each with the layer of every addition,
the norms of post-LN blocks, and which streams feed others (encoder and decoder).

An addition whose residual comes from an earlier addition by norms, casts and scales
only is in its stream.  A stream with attentions that is made from the end of one other
such stream alone is its next stage: its layers are numbered on.  A stream inside of a
branch of another is in that branch's layer as a whole.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from peftc.sites import ops
from peftc.sites.flow import strip
from peftc.sites.layers import layer_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.flow import Flow
    from peftc.sites.linears import Products
    from peftc.sites.norms import Norm
    from peftc.sites.residual import Addition

Stack = Literal["", "enc", "dec"]

_KEPT = ops.TRANSPARENT | ops.PIECES | frozenset(("mul", "masked_fill"))


@dataclass(frozen=True)
class Stream:
    """Additions one after another, from the first layer on; `layers[i]` is the layer of
    `additions[i]`."""

    additions: tuple[Addition, ...]
    layers: tuple[int, ...]
    stack: Stack = ""
    is_inner: bool = False
    """It lies in a branch of another stream."""

    @property
    def attends(self) -> bool:
        """Whether there is an attention in it."""
        return any(map(_attentions, self.additions))


@dataclass(frozen=True)
class Streams:
    """All streams of a graph, and the attentions that read another stream."""

    all: tuple[Stream, ...]
    crossing: frozenset[fx.Node]
    """The outputs of cross-attentions."""

    @property
    def layers(self) -> int:
        """The number of layers of the deepest stream with attentions, if any has."""
        streams = [s for s in self.all if s.attends] or self.all
        return max((s.layers[-1] + 1 for s in streams), default=0)


def find_streams(
    additions: tuple[Addition, ...],
    flow: Flow,
    products: Products,
    norms: Iterable[Norm],
) -> Streams:
    """Thread the additions into streams."""
    chains = _chains(additions, flow, products)
    crossing, feeding = _crossings(chains, flow)
    readers = {strip(norm.x, ops.VIEWS | ops.CASTS): norm for norm in norms}
    streams: list[Stream] = []
    for number, chain in enumerate(chains):
        is_reader = any(a.out in crossing for add in chain for a in _attentions(add))
        stack: Stack = "dec" if is_reader else "enc" if number in feeding else ""
        chain = _with_inner_convolutions(chain, crossing)
        kinds = "".join(_mixes(add, crossing) for add in chain)
        stream = _numbered(chain, stack, kinds)
        streams.append(replace(stream, additions=_with_norms(stream, readers, flow)))
    staged = _staged(streams, flow, products)
    return Streams(tuple(_settled(staged)), crossing)


def _numbered(chain: tuple[Addition, ...], stack: Stack, kinds: str) -> Stream:
    numbers = layer_numbers(kinds)
    layers = tuple(number for number in numbers if number is not None)
    return Stream(chain[len(chain) - len(layers) :], layers, stack)


def _with_inner_convolutions(
    chain: tuple[Addition, ...], crossing: frozenset[fx.Node]
) -> tuple[Addition, ...]:
    """Where a convolution follows each attention and nothing else is there, it is
    inside a feed-forward if it mixes no channels."""
    kinds = "".join(_mixes(addition, crossing) for addition in chain)
    if not re.fullmatch("(sc)+", kinds):
        return chain
    return tuple(map(_without_convolutions, chain))


def _without_convolutions(addition: Addition) -> Addition:
    branches = (
        replace(branch, mixers=frozenset())
        if not branch.attentions and all(map(ops.is_depthwise, branch.mixers))
        else branch
        for branch in addition.branches
    )
    return replace(addition, branches=tuple(branches))


def _staged(
    streams: list[Stream], flow: Flow, products: Products
) -> tuple[Stream, ...]:
    """Number the layers of stages on, and give all stages of a stack its name."""
    ends = {s.additions[-1].sum: i for i, s in enumerate(streams) if s.attends}
    stops = ends.keys() | products.gathers.keys()
    staged: list[Stream] = []
    for stream in streams:
        met = flow.back(stream.additions[0].origin, stops.__contains__) & stops
        earlier = [ends[n] for n in met if n in ends]
        if stream.attends and len(met) == len(earlier) == 1:
            last = staged[earlier[0]]
            layers = tuple(last.layers[-1] + 1 + number for number in stream.layers)
            stream = replace(stream, layers=layers, stack=stream.stack or last.stack)
        staged.append(stream)
    return tuple(staged)


def _settled(streams: tuple[Stream, ...]) -> Iterator[Stream]:
    """Put streams inside of a branch into that branch's layer."""
    for inner in streams:
        around = _around(inner, streams)
        if around is None:
            yield inner
        else:
            stream, layer = around
            layers = (layer,) * len(inner.layers)
            yield Stream(inner.additions, layers, stream.stack, is_inner=True)


def _around(inner: Stream, streams: tuple[Stream, ...]) -> tuple[Stream, int] | None:
    """The outermost stream with a branch around another, and the branch's layer."""
    first = inner.additions[0].sum
    for stream in streams:
        for addition, layer in zip(stream.additions, stream.layers, strict=True):
            inside = any(first in branch.nodes for branch in addition.branches)
            if inside and _around(stream, streams) is None:
                return stream, layer
    return None


def _chains(
    additions: tuple[Addition, ...], flow: Flow, products: Products
) -> tuple[tuple[Addition, ...], ...]:
    sums = {addition.sum for addition in additions}
    chain_of: dict[fx.Node, list[Addition]] = {}
    chains: list[list[Addition]] = []
    for addition in additions:
        before = flow.back(
            addition.base,
            lambda n: n in sums or products.is_product(n) or n in products.gathers,
        )
        parents = sorted(before & chain_of.keys(), key=flow.order.__getitem__)
        if parents:
            chain = chain_of[parents[-1]]
        else:
            chain = []
            chains.append(chain)
        chain.append(addition)
        chain_of[addition.sum] = chain
    return tuple(map(tuple, chains))


def _attentions(addition: Addition) -> tuple[Attention, ...]:
    return tuple(a for branch in addition.branches for a in branch.attentions)


def _crossings(
    chains: tuple[tuple[Addition, ...], ...], flow: Flow
) -> tuple[frozenset[fx.Node], frozenset[int]]:
    """The outputs of cross-attentions, and the chains that these read.

    A key that comes from no residual of the addition's own chain comes from another
    stream or from a cache of it.  (Keys shared by later layers come from an earlier
    residual of the chain.)
    """
    chain_of = {add.sum: i for i, chain in enumerate(chains) for add in chain}
    crossing, feeding = set(), set()
    for number, chain in enumerate(chains):
        for addition in chain:
            for attention in _attentions(addition):
                met = flow.back(attention.key, chain_of.__contains__)
                sources = {chain_of[n] for n in met & chain_of.keys()}
                if number not in sources and not met & {
                    addition.origin,
                    chain[0].origin,
                }:
                    crossing.add(attention.out)
                    feeding |= sources
    return frozenset(crossing), frozenset(feeding)


def _mixes(addition: Addition, crossing: frozenset[fx.Node]) -> str:
    """What the addition mixes, as a letter of `layers`."""
    attentions = _attentions(addition)
    if attentions:
        return "s" if any(a.out not in crossing for a in attentions) else "x"
    return "c" if any(branch.mixers for branch in addition.branches) else "f"


def _with_norms(
    stream: Stream, readers: dict[fx.Node, Norm], flow: Flow
) -> tuple[Addition, ...]:
    """Note the norm of each addition in a post-LN stream.

    There the norm alone reads the sum and its result is the next residual; where that
    cannot be told an addition is as the one before it (at a stage's end), or as the
    last of the layer before it (at the end).
    """
    chain, last = stream.additions, stream.layers[-1]
    found: list[Addition] = []
    nexts = [following.base for following in chain[1:]]
    for addition, base in zip_longest(chain, nexts):
        norm = readers.get(addition.sum)
        if norm is not None and _reads_alone(norm, addition.sum, flow):
            is_next = base is not None and _becomes(norm.y, base, flow)
            earlier = zip(found, stream.layers, strict=False) if base is None else ()
            alike = [a for a, n in earlier if n < last] or found
            if is_next or any(a.norm is not None for a in alike[-1:]):
                addition = replace(addition, norm=norm)
        found.append(addition)
    return tuple(found)


def _becomes(value: fx.Node, base: fx.Node, flow: Flow) -> bool:
    """Whether a residual is a value as it is, at most masked or cut."""
    return base is value or (
        bool(way := flow.between(value, base))
        and all(ops.name(n) in _KEPT for n in way)
    )


def _reads_alone(norm: Norm, value: fx.Node, flow: Flow) -> bool:
    """Whether nothing reads a value past a norm of it."""
    way = flow.between(value, norm.y)
    # One operator gives its statistics too.
    inner = (n for n in way if n is not norm.y and ops.name(n) not in ops.NORMS)
    return bool(way) and all(u in way for n in (value, *inner) for u in n.users)
