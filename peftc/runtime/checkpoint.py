"""Regions of a rewritten graph as checkpointed bodies.

In: a graph with regions, those of layers that Transformers was told to checkpoint
(`sites.bodies`) or of blocks (`blocks.mark`).  Out: the graph in which each region is a
body, with what was inserted in it, and is run checkpointed.

Run eagerly, the operation would not restore the random state for the recomputation, and
dropout would silently give wrong gradients; so an eager run uses
`torch.utils.checkpoint` with the state kept, and only other backends the operation.
"""

from __future__ import annotations

from operator import getitem
from typing import TYPE_CHECKING, Any

from torch import fx
from torch.utils.checkpoint import checkpoint

from peftc.sites.bodies import OPERATION, REGION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.sites.bodies import Region


def checkpointed(body: Any, *inputs: Any) -> Any:
    """Run a body so that its backward recomputes it under the same random state."""
    return checkpoint(body, *inputs, use_reentrant=False, preserve_rng_state=True)


# --- taking regions out again ---------------------------------------------------------


def outline(gm: fx.GraphModule, regions: Sequence[Region], eager: bool) -> None:
    """Make each region a checkpointed body again."""
    for region in regions:
        nodes = _extent(gm.graph, region.number)
        if nodes:
            _outline(gm, region, nodes, eager)


def _extent(graph: fx.Graph, number: int) -> list[fx.Node]:
    """From the first to the last node of a region; what was inserted between included.

    Inputs and modules may have been put in between, but belong to the whole graph.
    """
    nodes = list(graph.nodes)
    marked = [i for i, n in enumerate(nodes) if n.meta.get(REGION) == number]
    inside = nodes[marked[0] : marked[-1] + 1] if marked else []
    return [n for n in inside if n.op not in ("placeholder", "get_attr")]


def _outline(
    gm: fx.GraphModule, region: Region, nodes: list[fx.Node], eager: bool
) -> None:
    members = set(nodes)
    reads = [i for n in nodes for i in n.all_input_nodes if i not in members]
    inputs = [n for n in dict.fromkeys(reads) if n.op != "get_attr"]
    outputs = [n for n in nodes if any(user not in members for user in n.users)]
    modules = [n for n in dict.fromkeys(reads) if n.op == "get_attr"]
    name = f"peftc_region_{region.number}"
    gm.add_module(name, _body(gm, [*modules, *nodes], inputs, outputs))
    with gm.graph.inserting_after(nodes[-1]):
        holder = gm.graph.get_attr(name)
    with gm.graph.inserting_after(holder):
        target, kwargs = (checkpointed, {}) if eager else (OPERATION, region.kwargs)
        call = gm.graph.call_function(target, (holder, *inputs), kwargs)
    call.meta |= region.meta
    call.meta["example_value"] = tuple(n.meta["example_value"] for n in outputs)
    _redirect(gm.graph, call, outputs, members)
    for node in reversed(nodes):
        gm.graph.erase_node(node)


def _body(
    gm: fx.GraphModule,
    nodes: list[fx.Node],
    inputs: list[fx.Node],
    outputs: list[fx.Node],
) -> fx.GraphModule:
    graph = fx.Graph()
    known: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        known[node] = graph.placeholder(node.name)
        known[node].meta = dict(node.meta)
    for node in nodes:
        known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(tuple(known[n] for n in outputs))
    return fx.GraphModule(gm, graph)


def _redirect(
    graph: fx.Graph, call: fx.Node, outputs: list[fx.Node], members: set[fx.Node]
) -> None:
    last = call
    for index, node in enumerate(outputs):
        with graph.inserting_after(last):
            last = graph.call_function(getitem, (call, index))
        last.meta |= {k: v for k, v in node.meta.items() if k != REGION}
        node.replace_all_uses_with(
            last, delete_user_cb=lambda user: user not in members, propagate_meta=False
        )
