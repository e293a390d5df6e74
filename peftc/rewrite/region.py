"""Where the input of a planned step is cheap to compute from what is kept anyway.

In: a graph with planned steps.  Out: steps that compute their input themselves, and
again in the backward.  What an input is made by is followed back through operations on
single elements and norms, as long as there is one large operand, or several of a
product, which torch would keep all; values that others read too are where it ends.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx

from peftc.rewrite.linear import PURE
from peftc.rewrite.make_input import make_input
from peftc.rewrite.recomputed import Made
from peftc.rewrite.step import Together
from peftc.sites import ops
from peftc.sites.bodies import REGION

LAYOUT = (ops.VIEWS - {"clone", "roll", "detach", "getattr"}) | ops.CASTS
ARITHMETIC = (
    ops.SCALES | ops.SUMS | ops.ACTIVATIONS | {"mean", "layer_norm", "rms_norm"}
)
MANY = ops.SCALES
"""Operations of which torch keeps every operand."""


@dataclass(frozen=True)
class Region:
    """How x is made: nodes in their order, x the last, and what they read."""

    nodes: tuple[fx.Node, ...]
    reads: tuple[fx.Node, ...]

    @property
    def x(self) -> fx.Node:
        """The activation."""
        return self.nodes[-1]


def recompute(graph: fx.Graph) -> int:
    """Let steps compute their inputs; returns how many do."""
    _drop_replaced(graph)
    steps = [node for node in graph.nodes if isinstance(node.target, Together)]
    inputs = [_input(node) for node in steps]
    count = 0
    for step, x in zip(steps, inputs, strict=True):
        region = region_of(x) if inputs.count(x) == 1 else None
        if region is not None and not any(u < step for u in _others(region, step)):
            _replace(step, region)
            count += 1
    return count


def _drop_replaced(graph: fx.Graph) -> None:
    """Erase the linears whose values steps give."""
    for node in reversed(graph.nodes):
        is_linear = node.target in (F.linear, torch.addmm) or ops.name(node) in LAYOUT
        if is_linear and not node.users and not _changes_an_operand(node):
            graph.erase_node(node)


def _input(step: fx.Node) -> fx.Node:
    assert isinstance(step.target, Together)
    x = step.args[step.target.first]
    assert isinstance(x, fx.Node)
    return x


def _others(region: Region, step: fx.Node) -> list[fx.Node]:
    """What reads x beside the step."""
    return [user for user in region.x.users if user is not step]


# --- finding ------------------------------------------------------------------------


def region_of(x: fx.Node) -> Region | None:
    """How x is made, if that is cheap and has less to keep than x."""
    if not _is_cheap(x):
        return None
    nodes, open_ends = {x}, {*x.all_input_nodes}
    while open_ends:
        node = max(open_ends)  # all that read it come later, and were looked at
        open_ends.remove(node)
        inside = all(user in nodes for user in node.users)
        if inside and _is_cheap(node) and node.meta.get(REGION) == x.meta.get(REGION):
            nodes.add(node)
            open_ends.update(node.all_input_nodes)
    if not any(ops.name(node) in ARITHMETIC for node in nodes):
        return None
    ordered = tuple(sorted(nodes))
    reads = dict.fromkeys(i for n in ordered for i in n.all_input_nodes)
    return Region(ordered, tuple(one for one in reads if one not in nodes))


def _is_cheap(node: fx.Node) -> bool:
    name = ops.name(node)
    if _changes_an_operand(node) or name not in LAYOUT | ARITHMETIC:
        return False
    large = [one for one in node.all_input_nodes if _is_large(one)]
    return len(large) < 2 or name in MANY


def _changes_an_operand(node: fx.Node) -> bool:
    method = isinstance(node.target, str) and node.target.endswith("_")
    return method or node.target in PURE or bool(node.kwargs.get("inplace"))


def _is_large(node: fx.Node) -> bool:
    """Whether a value has an element for each token and feature."""
    value = node.meta.get("example_value")
    if not isinstance(value, torch.Tensor) or node.op == "placeholder":
        return False
    return value.dim() > 1 and value.shape[-1] != 1


# --- replacing ------------------------------------------------------------------------


def _replace(step: fx.Node, region: Region) -> None:
    together = step.target
    assert isinstance(together, Together)
    others = _others(region, step)
    made = Made(together.first, _made(region).forward, len(region.reads))
    new, at = make_input(step, made, region.reads, region.x if others else None)
    if REGION in region.x.meta:
        new.meta[REGION] = region.x.meta[REGION]
    if others:
        x = at.put(operator.getitem, new, len(together.source.results))
        for user in others:
            user.replace_input_with(region.x, x)
    for node in reversed(region.nodes):
        step.graph.erase_node(node)


def _made(region: Region) -> fx.GraphModule:
    graph = fx.Graph()
    known = {node: graph.placeholder(node.name) for node in region.reads}
    for node in region.nodes:
        known[node] = graph.node_copy(node, known.__getitem__)
    graph.output(known[region.x])
    return fx.GraphModule({}, graph)
