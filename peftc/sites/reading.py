"""A graph, read once: everything that roles are told from.

In: a captured graph and the parameter paths of its placeholders.  Out: its products,
norms, attentions and streams of residual additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.sites.attention import find_attentions
from peftc.sites.flow import Flow
from peftc.sites.linears import find_products
from peftc.sites.norms import find_norms
from peftc.sites.residual import find_additions
from peftc.sites.streams import find_streams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.linears import Products
    from peftc.sites.norms import Norm
    from peftc.sites.streams import Streams


@dataclass(frozen=True)
class Reading:
    """What a graph is made of, as far as sites are concerned."""

    names: Mapping[fx.Node, str]
    output: fx.Node
    flow: Flow
    products: Products
    norms: tuple[Norm, ...]
    attentions: tuple[Attention, ...]
    streams: Streams
    ends: frozenset[fx.Node]
    """Where a value begins: products, look-ups, residual sums and attentions."""


def read(graph: fx.Graph, names: Mapping[fx.Node, str]) -> Reading:
    """Read a graph."""
    flow = Flow.of(graph)
    products = find_products(graph, names)
    norms = find_norms(graph, names)
    attentions = find_attentions(graph, products)
    additions = find_additions(graph, flow, products, attentions)
    streams = find_streams(additions, flow, products, norms)
    ends = frozenset(
        (
            *products.linears,
            *products.opaque,
            *products.gathers,
            *(addition.sum for addition in additions),
            *(attention.out for attention in attentions),
        )
    )
    output = graph.output_node()
    return Reading(names, output, flow, products, norms, attentions, streams, ends)
