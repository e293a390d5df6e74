"""Carrying added columns through the steps of an attention that is spelt out.

In: two nodes of a graph, one leading to the other, and a value that stands beside the
first with other columns.  Out: what the steps between make of it.  Scales, soft caps,
casts and dropout act on added columns as on the base's own; masks, biases and sinks are
of the base's columns and do nothing to the added ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import StepNotCarried
from peftc.rewrite.insert import example, length
from peftc.rewrite.linear import PURE
from peftc.sites import ops

if TYPE_CHECKING:
    from peftc.rewrite.insert import Inserter

_OWN = frozenset(("masked_fill", "where", "cat", "getitem"))
"""Steps that concern the base's own columns: masks, sinks, and cutting these off."""

_LAYOUTS = frozenset(("view", "reshape"))
_FACTORS = frozenset(("mul", "div", "maximum", "minimum", "max", "min"))


@dataclass(frozen=True)
class Step:
    """A node, the operand that the columns come through, and whether another of its
    operands is made from the same scores (a maximum that is taken off)."""

    node: torch.fx.Node
    operand: torch.fx.Node
    twice: bool


def chain(start: torch.fx.Node, end: torch.fx.Node) -> list[Step]:
    """The steps that lead from `start` to `end`, without `start`."""
    on_way = _reached(start, end)
    found: list[Step] = []
    while end is not start:
        inside = [n for n in ops.inputs(end) if n in on_way]
        operand = max(inside, key=_columns)
        found.append(Step(end, operand, len(inside) > 1))
        end = operand
    return found[::-1]


def _columns(node: torch.fx.Node) -> int:
    sizes = ops.shape(node)
    return sizes[-1] if sizes else 0


def _reached(start: torch.fx.Node, end: torch.fx.Node) -> set[torch.fx.Node]:
    """`start` and all nodes up to `end` that depend on it."""
    found, node = {start}, start
    while node is not end:
        node = node.next
        if not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


def carried(way: list[Step], value: torch.fx.Node, at: Inserter) -> torch.fx.Node:
    """What a way makes of a value with other columns.

    Raises:
        PeftcError: if a step does more to columns than scaling them alike.
    """
    for step in way:
        value = _carry(step, value, at)
    return value


def _carry(step: Step, value: torch.fx.Node, at: Inserter) -> torch.fx.Node:
    name = ops.name(step.node)
    if name in _OWN:
        return value
    if name in ops.SUMS and not step.twice and len(ops.inputs(step.node)) > 1:
        return value
    if name in ops.CASTS:
        return _again(step, value, at)
    if name in _LAYOUTS:
        return _laid_out(step.node, value, at)
    others = [n for n in ops.inputs(step.node) if n is not step.operand]
    is_known = name in _FACTORS | ops.SUMS or not others
    if not is_known or any(_columns(n) > 1 for n in others):
        raise fail(StepNotCarried(site=at.site, op=name))
    return _again(step, value, at)


def _laid_out(node: torch.fx.Node, value: torch.fx.Node, at: Inserter) -> torch.fx.Node:
    """The value with the leading axes of a view."""
    leading = [length(node, i, at) for i in range(example(node).dim() - 1)]
    return at.put("reshape", value, (*leading, length(value, -1, at)))


def _again(step: Step, value: torch.fx.Node, at: Inserter) -> torch.fx.Node:
    """The step on the value, without changing an operand in place."""
    node, swap = step.node, {step.operand: value}
    args, kwargs = torch.fx.node.map_arg(
        (node.args, node.kwargs), lambda n: swap.get(n, n)
    )
    target: Any = node.target
    if isinstance(target, str):
        target = target.rstrip("_")
    return at.put(PURE.get(target, target), *args, **kwargs)
