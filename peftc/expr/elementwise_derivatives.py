"""Derivatives of the elementwise functions, as expressions.

In: the argument of a function and its value.  Out: the derivative at the argument, by
the axes of both.  Where a function has a kink, it is what torch takes there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peftc.expr.ir import Node, add, apply_map, ein, literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def times(*nodes: Node) -> Node:
    """The elementwise product of nodes of equal axes."""
    row = tuple(range(len(nodes[0].axes)))
    return ein(nodes, [row] * len(nodes), row)


def scaled(node: Node, coef: float) -> Node:
    """coef * node."""
    return add((node,), (coef,))


def _affine(coef: float, node: Node, offset: float) -> Node:
    return add((node, literal(1, node.axes)), (coef, offset))


def _zero(a: Node, y: Node) -> Node:
    return literal(0, a.axes)


def _bell(a: Node, rate: float) -> Node:
    """exp(-rate * a^2)."""
    return apply_map("exp", scaled(times(a, a), -rate))


def _inside(a: Node, y: Node) -> Node:
    """One where 0 <= a <= 1."""
    below = _affine(-1, apply_map("step", scaled(a, -1)), 1)
    above = _affine(-1, apply_map("step", _affine(1, a, -1)), 1)
    return times(below, above)


def _exponential_unit(a: Node, y: Node) -> Node:
    """exp(min(a, 0)), which never overflows."""
    return apply_map("exp", scaled(apply_map("relu", scaled(a, -1)), -1))


def _gelu(a: Node, y: Node) -> Node:
    """The normal distribution function, and a times its density."""
    distribution = _affine(0.5, apply_map("erf", scaled(a, math.sqrt(0.5))), 0.5)
    density = times(a, _bell(a, 0.5))
    return add((distribution, density), (1, 1 / math.sqrt(2 * math.pi)))


def _gelu_tanh(a: Node, y: Node) -> Node:
    rate, cubic = math.sqrt(2 / math.pi), 0.044715
    inner = add((a, times(a, a, a)), (rate, rate * cubic))
    t = apply_map("tanh", inner)
    slope = times(
        a, _affine(-1, times(t, t), 1), _affine(3 * rate * cubic, times(a, a), rate)
    )
    return add((_affine(0.5, t, 0.5), slope), (1, 0.5))


def _mish(a: Node, y: Node) -> Node:
    t = apply_map("tanh", apply_map("softplus", a))
    slope = times(a, _affine(-1, times(t, t), 1), apply_map("sigmoid", a))
    return add((t, slope))


def _swish(rate: float) -> Callable[[Node, Node], Node]:
    """Of a * sigmoid(rate * a)."""

    def derivative(a: Node, y: Node) -> Node:
        s = apply_map("sigmoid", scaled(a, rate))
        return add((s, times(a, s, _affine(-1, s, 1))), (1, rate))

    return derivative


DERIVATIVES: Mapping[str, Callable[[Node, Node], Node]] = {
    "abs": lambda a, y: apply_map("sign", a),
    "clamp01": _inside,
    "cos": lambda a, y: scaled(apply_map("sin", a), -1),
    "elu": _exponential_unit,
    "erf": lambda a, y: scaled(_bell(a, 1), 2 / math.sqrt(math.pi)),
    "exp": lambda a, y: y,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "leaky_relu": lambda a, y: _affine(0.99, apply_map("step", a), 0.01),
    "log": lambda a, y: apply_map("recip", a),
    "mish": _mish,
    "quick_gelu": _swish(1.702),
    "recip": lambda a, y: scaled(times(y, y), -1),
    "relu": lambda a, y: apply_map("step", a),
    "rsqrt": lambda a, y: scaled(times(y, y, y), -0.5),
    "sigmoid": lambda a, y: times(y, _affine(-1, y, 1)),
    "sign": _zero,
    "silu": _swish(1),
    "sin": lambda a, y: apply_map("cos", a),
    "softplus": lambda a, y: apply_map("sigmoid", a),
    "sqrt": lambda a, y: scaled(apply_map("recip", y), 0.5),
    "step": _zero,
    "tanh": lambda a, y: _affine(-1, times(y, y), 1),
}
"""The derivative of each of functions.ELEMENTWISE, of its argument a and value y."""
