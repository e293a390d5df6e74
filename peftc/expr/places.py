"""What equations may name at each kind of site, as leaves of the IR.

b and t are the sample and token axes of an activation.  In a rule a name means the
value before this method; `peftc.expr.compose` substitutes the values so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.expr.ir import Leaf, Node, add, ein, leaf, literal
from peftc.expr.sizes import Size

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_AXES = (Size.of("b"), Size.of("t"))

LINEAR: Mapping[str, Leaf] = {
    "W": leaf("W", "weight", ("out", "in")),
    "bias": leaf("bias", "weight", ("out",)),
    "x": leaf("x", "input", ("b", "t", "in")),
    "y": leaf("y", "input", ("b", "t", "out")),
}
"""`y` is W x + bias."""

HIDDEN: Mapping[str, Leaf] = {
    "h": leaf("h", "input", ("b", "t", "hidden")),
    "u": leaf("u", "input", ("b", "t", "hidden")),
    "n": leaf("n", "input", ("b", "t", "hidden")),
}
"""`h` is the edge, `u` the input of the sublayer that ends there, and `n` what the
norm after the residual add would give for it (h itself in pre-norm models)."""

NORM: Mapping[str, Leaf] = {
    "g": leaf("g", "weight", ("hidden",)),
    "c": leaf("c", "weight", ("hidden",)),
}

PLACES: Mapping[str, Mapping[str, Leaf]] = {
    "linear": LINEAR,
    "hidden": HIDDEN,
    "norm": NORM,
}

TARGETS: Mapping[str, tuple[str, ...]] = {
    "linear": ("W", "bias", "x", "y"),
    "hidden": ("h",),
    "norm": ("g", "c"),
}
"""What rules may rewrite."""

AXES: Mapping[str, tuple[str, ...]] = {
    "linear": ("out", "in"),
    "hidden": ("hidden",),
    "norm": ("hidden",),
}
"""The axes that a site of this kind gives numbers to."""


def linear_product(weight: Node, x: Node, bias: Node | None = None) -> Node:
    """W x + bias: weight[out, in], x[b, t, in], bias[out] -> [b, t, out]."""
    y = ein((weight, x), (("o", "i"), ("b", "t", "i")), ("b", "t", "o"))
    return y if bias is None else add((y, over_tokens(bias)))


def over_tokens(vector: Node) -> Node:
    """A vector at every token: v[n] -> [b, t, n]."""
    ones = literal(1, TOKEN_AXES)
    return ein((vector, ones), (("n",), ("b", "t")), ("b", "t", "n"))
