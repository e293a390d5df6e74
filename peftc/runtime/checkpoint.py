"""Checkpointed layers of a captured graph.

Dynamo captures a checkpointed layer as one operation with a body.  In: such a graph.
`inline` puts the bodies into the graph, so that sites are located and rewritten as in
any other; `outline` makes each region a body again, with what was inserted in it, and
runs it checkpointed.

Run eagerly, the operation would not restore the random state for the recomputation, and
dropout would silently give wrong gradients; so an eager run uses
`torch.utils.checkpoint` with the state kept, and only other backends the operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import getitem
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

_OPERATION = torch.ops.higher_order.tag_activation_checkpoint
_REGION = "peftc.region"


@dataclass(frozen=True)
class Region:
    """A former body: its number, and how the operation was called."""

    number: int
    kwargs: dict[str, Any]
    meta: dict[str, Any]


def checkpointed(body: Any, *inputs: Any) -> Any:
    """Run a body so that its backward recomputes it under the same random state."""
    return checkpoint(body, *inputs, use_reentrant=False, preserve_rng_state=True)


# --- putting bodies into the graph --------------------------------------------------


def inline(gm: fx.GraphModule) -> tuple[Region, ...]:
    """Replace every checkpointed body by its nodes, each marked with its region."""
    regions: list[Region] = []
    for call in gm.graph.find_nodes(op="call_function", target=_OPERATION):
        region = Region(len(regions), dict(call.kwargs), dict(call.meta))
        outputs = _copy_body(gm, call, region)
        for user in list(call.users):
            assert user.target is getitem
            user.replace_all_uses_with(outputs[user.args[1]])
            gm.graph.erase_node(user)
        gm.graph.erase_node(call)
        regions.append(region)
    return tuple(regions)


def _copy_body(gm: fx.GraphModule, call: fx.Node, region: Region) -> Any:
    holder, *operands = call.args
    assert isinstance(holder, fx.Node)
    body = gm.get_submodule(str(holder.target))
    assert isinstance(body, fx.GraphModule)
    inputs = body.graph.find_nodes(op="placeholder")
    known = dict(zip(inputs, operands, strict=True))
    with gm.graph.inserting_before(call):
        for node in body.graph.nodes:
            if node.op == "output":
                return fx.node.map_arg(node.args[0], known.__getitem__)
            if node.op != "placeholder":
                known[node] = _copy(gm, body, node, known)
                known[node].meta[_REGION] = region.number
    raise AssertionError("a graph ends with its output")


def _copy(
    gm: fx.GraphModule, body: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Any]
) -> fx.Node:
    copy = gm.graph.node_copy(node, known.__getitem__)
    if node.op == "get_attr":
        name = f"peftc_{len(list(gm.children()))}_{str(node.target).replace('.', '_')}"
        gm.add_module(name, body.get_submodule(str(node.target)))
        copy.target = name
    return copy


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
    marked = [i for i, n in enumerate(nodes) if n.meta.get(_REGION) == number]
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
        target, kwargs = (checkpointed, {}) if eager else (_OPERATION, region.kwargs)
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
        last.meta |= {k: v for k, v in node.meta.items() if k != _REGION}
        node.replace_all_uses_with(
            last, delete_user_cb=lambda user: user not in members, propagate_meta=False
        )
