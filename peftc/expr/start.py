"""Whether what happens at a site begins as nothing: the model then starts as the base.

In: the composed expressions of a site.  Out: a claim that follows from the equations
and the initial values, never from a name.  Initial values that are drawn may be
anything; a claim that only holds by cancelling numbers is not made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.networks import starts_alike
from peftc.expr.normal import equal
from peftc.expr.places import LINEAR, PLACES, linear_product

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.compose import Composed
    from peftc.expr.equation import Declaration
    from peftc.expr.ir import Node


def starts_as_base(
    composed: Composed, env: Mapping[str, int], biased: bool = False
) -> bool:
    """Whether every output is the base's where all tensors have their first values.

    `biased` says whether a linear has a bias, a norm an offset.
    """
    if composed.kind in ("attention", "input"):
        return not composed.outputs
    if composed.kind == "side":
        return all(starts_alike(network) for network in composed.networks)
    first = dict(filter(None, map(_first_value, composed.declarations)))
    for target, output in composed.outputs.items():
        (start,) = ir.replace([output], first)
        if not equal(start, _base(composed.kind, target, biased), env):
            return False
    return True


def _first_value(declared: Declaration) -> tuple[Node, Node] | None:
    """A tensor and the value it starts with, if that is one number or an expression."""
    value = declared.init.node
    if value is None:
        return None
    if not value.axes and isinstance(value, ir.Literal):
        value = ir.literal(value.value, declared.axes)
    leaf = ir.leaf(declared.name, declared.kind, declared.axes)
    return (leaf, value) if value.axes == declared.axes else None


def _base(kind: str, target: str, biased: bool) -> Node:
    if kind == "linear":
        bias = LINEAR["bias"] if biased else None
        return linear_product(LINEAR["W"], LINEAR["x"], bias)
    leaf = PLACES[kind][target]
    return leaf if biased or target != "c" else ir.literal(0, leaf.axes)
