"""Expressions as they are in training, with dropout as products with masks, or outside.

In: concrete expressions.  Out: the same without `drop` and `training`, and the masks.
A mask is a given value, zero with probability p and 1 / (1 - p) else, so that forward
and backward read the same one; uses of one `drop` share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.elementwise_derivatives import times
from peftc.expr.functions import OUTSIDE_TRAINING
from peftc.expr.ir import Call, Leaf, Node

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Mask:
    """What is multiplied by for `drop(e, p)`."""

    leaf: Leaf
    p: float


def in_training(roots: Sequence[Node]) -> tuple[tuple[Node, ...], tuple[Mask, ...]]:
    """The roots in training, and the masks they read, in order of first use."""
    new: dict[Node, Node] = {}
    masks: list[Mask] = []
    for node in ir.walk(*roots):
        operands = [new[operand] for operand in node.operands]
        if isinstance(node, Call) and node.fn == "drop":
            masks.append(_mask(node, len(masks)))
            new[node] = times(operands[0], masks[-1].leaf)
        elif isinstance(node, Call) and node.fn == "training":
            new[node] = operands[0]
        else:
            new[node] = ir.rebuild(node, operands)
    values = tuple(new[root] for root in roots)
    read = set(ir.walk(*values))
    return values, tuple(mask for mask in masks if mask.leaf in read)


def in_evaluation(roots: Sequence[Node]) -> tuple[Node, ...]:
    """The roots outside of training; what has no gradient still has none."""
    new: dict[Node, Node] = {}
    for node in ir.walk(*roots):
        operands = [new[operand] for operand in node.operands]
        if isinstance(node, Call) and node.fn in ("drop", "training"):
            new[node] = operands[OUTSIDE_TRAINING[node.fn]]
        else:
            new[node] = ir.rebuild(node, operands)
    return tuple(new[root] for root in roots)


def _mask(node: Call, before: int) -> Mask:
    name = f"mask#{before + 1}" if before else "mask"
    return Mask(ir.leaf(name, "input", node.axes), float(node.attrs[0]))
