"""Seconds of an ordered expression: the sum over its values, each made once.

In: concrete roots whose products are ordered.  Out: seconds by the machine's roofline.
What frozen tensors alone give is free, as it can be kept; so are views, and values of
the base's own that are computed anyway.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.cost import has_tokens
from peftc.expr.ir import Call, Ein, Eye, Leaf, Literal, Node, View

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.expr.cost import Measure

WHOLE = ("back", "base", "product")
"""Calls of the base's linear."""


def seconds(roots: Sequence[Node], measure: Measure, weight: int = 0) -> float:
    """The time of all roots together; the base's weight has `weight` elements."""
    return sum(_seconds(node, measure, weight) for node in ir.walk(*roots))


def _seconds(node: Node, measure: Measure, weight: int) -> float:
    if isinstance(node, (Leaf, Literal, Eye, View)):
        return 0.0
    if measure.frozen(node) and not has_tokens(node):
        return 0.0
    m = measure.machine
    flops, peak = _work(node, measure, weight)
    read = (o.axes for o in node.operands if not isinstance(o, Literal))
    elements = measure.elements(node.axes) + sum(map(measure.elements, read))
    return max(flops / peak, m.element * elements / m.bandwidth) + m.launch


def _work(node: Node, measure: Measure, weight: int) -> tuple[int, float]:
    """Flops, and how many a second."""
    m = measure.machine
    if isinstance(node, Call) and node.fn in WHOLE:
        return 2 * m.batch * m.tokens * weight, m.matrix
    if not isinstance(node, Ein):
        return measure.elements(node.axes) * len(node.operands), m.vector
    rows = [set(row) for row in node.labels]
    size = {
        label: measure.number(axis)
        for operand, row in zip(node.operands, node.labels, strict=True)
        for axis, label in zip(operand.axes, row, strict=True)
    }
    bound = size.keys() - set(node.out)
    flops = math.prod(size.values()) * (2 if bound else 1)
    both = len(rows) == 2 and bool(bound & rows[0] & rows[1])
    matrix = both and rows[0] - rows[1] and rows[1] - rows[0]
    return flops, m.matrix if matrix else m.vector
