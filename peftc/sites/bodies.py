"""Checkpointed layers of a captured graph, put into the graph.

Dynamo captures a checkpointed layer as one operation with a body.  In: such a graph.
Out: the graph with the bodies' operations in it, so that sites are located and
rewritten as in any other; and `Region`s, by which the layers can be told again.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import getitem
from typing import Any

import torch
from torch import fx

OPERATION = torch.ops.higher_order.tag_activation_checkpoint
REGION = "peftc.region"
"""Under this name a node keeps the number of its region."""


@dataclass(frozen=True)
class Region:
    """A former body: its number, and how the operation was called."""

    number: int
    kwargs: dict[str, Any]
    meta: dict[str, Any]


def inline(gm: fx.GraphModule) -> tuple[Region, ...]:
    """Replace every checkpointed body by its nodes, each marked with its region."""
    regions: list[Region] = []
    for call in gm.graph.find_nodes(op="call_function", target=OPERATION):
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
                known[node].meta[REGION] = region.number
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
