"""The blocks of a model in a captured graph, as regions to be checkpointed.

In: a graph, the model that it was captured from, and how many blocks there are for each
that is checkpointed.  Out: `Region`s, whose nodes are marked as `sites.bodies.inline`
marks those of layers that Transformers checkpoints, so that `checkpoint.outline` serves
both.

A block is a member of a list of modules that is in no other; a model may call one
several times, and each call is a region.  A call that changes a tensor from outside of
it, such as a static cache, is none: computed again, it would change it twice.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from peftc.sites import ops
from peftc.sites.bodies import REGION, Region
from peftc.sites.flow import strip

if TYPE_CHECKING:
    from collections.abc import Iterator

_KWARGS = {"use_reentrant": False}
_MODULES = "nn_module_stack"


def mark(gm: fx.GraphModule, model: nn.Module, every: int) -> tuple[Region, ...]:
    """Mark each `every`th block of a graph that may have a backward."""
    if not every or not torch.is_grad_enabled():
        return ()
    chosen = {str(id(block)) for block in _blocks(model, every)}
    calls: dict[str, list[fx.Node]] = {}
    for node in gm.graph.nodes:
        call = _call(node, chosen)
        if call:
            calls.setdefault(call, []).append(node)
    kept = [nodes for nodes in calls.values() if not _changes_others(nodes)]
    for number, nodes in enumerate(kept):
        for node in nodes:
            node.meta[REGION] = number
    return tuple(Region(number, dict(_KWARGS), {}) for number in range(len(kept)))


def _blocks(model: nn.Module, every: int) -> Iterator[nn.Module]:
    """The first of every so many members of each outermost list of modules."""
    for child in model.children():
        if isinstance(child, nn.ModuleList):
            yield from list(child)[::every]
        else:
            yield from _blocks(child, every)


def _call(node: fx.Node, chosen: set[str]) -> str:
    """Which call of a chosen block a node is of: the block's identity, with the number
    of the call behind it if that is not the first."""
    if node.op in ("placeholder", "get_attr", "output"):
        return ""
    inside = node.meta.get(_MODULES) or {}
    return next((key for key in inside if key.partition("@")[0] in chosen), "")


def _changes_others(nodes: list[fx.Node]) -> bool:
    members = set(nodes)
    changed = (node.args[0] for node in nodes if _changes_its_first(node))
    return any(
        isinstance(one, fx.Node) and strip(one, _SAME_MEMORY) not in members
        for one in changed
    )


def _changes_its_first(node: fx.Node) -> bool:
    name: Any = getattr(node.target, "__name__", node.target)
    in_place = str(name).endswith("_") and not str(name).endswith("__")
    return in_place or node.target in _SETTERS or bool(node.kwargs.get("inplace"))


_SAME_MEMORY = ops.VIEWS | ops.CASTS | ops.PIECES
"""Operators whose result may be the memory of what they read."""
_SETTERS = (operator.setitem, operator.iadd, operator.imul, operator.isub)
