"""Streams of additions, and the layers they are made of.

In: the additions of a graph.  Out: `Stream`s, each with the layer of every addition,
the norms of post-LN blocks, and which streams feed others (encoder and decoder).

An addition whose residual comes from an earlier addition by norms, casts and scales
only is in its stream.  **A layer begins at each addition that mixes the tokens of its
own stream**, by self-attention or by a convolution: what a stream adds before the first
is in layer 0; cross-attention and feed-forward are in the layer that has begun.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Literal

from peftc.sites import ops
from peftc.sites.flow import strip

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.flow import Flow
    from peftc.sites.linears import Products
    from peftc.sites.norms import Norm
    from peftc.sites.residual import Addition

Stack = Literal["", "enc", "dec"]


@dataclass(frozen=True)
class Stream:
    """Additions one after another; `layers[i]` is the layer of `additions[i]`."""

    additions: tuple[Addition, ...]
    layers: tuple[int, ...]
    stack: Stack = ""


@dataclass(frozen=True)
class Streams:
    """All streams of a graph, and the attentions that read another stream."""

    all: tuple[Stream, ...]
    crossing: frozenset[fx.Node]
    """The outputs of cross-attentions."""

    @property
    def layers(self) -> int:
        """The number of layers of the deepest stream."""
        return max((s.layers[-1] + 1 for s in self.all), default=0)


def find_streams(
    additions: tuple[Addition, ...],
    flow: Flow,
    products: Products,
    norms: Iterable[Norm],
) -> Streams:
    """Thread the additions into streams."""
    chains = _chains(additions, flow, products)
    crossing, feeding = _crossings(chains, flow)
    readers = {norm.x: norm for norm in norms if norm.is_call}
    streams = []
    for number, chain in enumerate(chains):
        chain = _with_norms(chain, readers)
        is_reader = any(a.out in crossing for add in chain for a in _attentions(add))
        stack: Stack = "dec" if is_reader else "enc" if number in feeding else ""
        begins = [_mixes(addition, crossing) for addition in chain]
        streams.append(Stream(chain, _layers(begins), stack))
    return Streams(tuple(streams), crossing)


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


def _mixes(addition: Addition, crossing: frozenset[fx.Node]) -> bool:
    """Whether the addition mixes the tokens of its own stream."""
    attends = any(a.out not in crossing for a in _attentions(addition))
    return attends or any(
        ops.name(n) in ops.CONVOLUTIONS for b in addition.branches for n in b.nodes
    )


def _layers(begins: list[bool]) -> tuple[int, ...]:
    numbers = accumulate(begins, initial=0)
    return tuple(max(0, number - 1) for number in islice(numbers, 1, None))


def _with_norms(
    chain: tuple[Addition, ...], readers: dict[fx.Node, Norm]
) -> tuple[Addition, ...]:
    """Note the norm of each addition in a post-LN stream.

    There the norm alone reads the sum and its result is the next residual; the last
    addition has no next one, so it is as the one before it.
    """
    found: list[Addition] = []
    for i, addition in enumerate(chain):
        norm = readers.get(addition.sum)
        if norm is None or len(addition.sum.users) != 1:
            found.append(addition)
        elif i + 1 < len(chain):
            is_next = strip(chain[i + 1].base, ops.TRANSPARENT) is norm.y
            found.append(replace(addition, norm=norm) if is_next else addition)
        else:
            is_post = bool(found) and found[-1].norm is not None
            found.append(replace(addition, norm=norm) if is_post else addition)
    return tuple(found)
