"""What equations may name at each kind of site, as leaves of the IR.

b and t are the sample and token axes of an activation.  In a rule a name means the
value before this method; `peftc.expr.compose` substitutes the values so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.expr.ir import Leaf, Node, add, ein, leaf, literal
from peftc.expr.sizes import Size
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Mapping

TOKEN_AXES = (Size.of("b"), Size.of("t"))

REAL = leaf("real", "input", ("b", "t"))
"""1 for the tokens of a sample, 0 for its padding."""

TAP = leaf("u", "input", ("b", "t", "hidden"))
"""What the sublayer reads."""

LINEAR: Mapping[str, Leaf] = {
    "W": leaf("W", "weight", ("out", "in")),
    "bias": leaf("bias", "weight", ("out",)),
    "x": leaf("x", "input", ("b", "t", "in")),
    "y": leaf("y", "input", ("b", "t", "out")),
    "real": REAL,
}
"""`y` is W x + bias."""

HIDDEN: Mapping[str, Leaf] = {
    "h": leaf("h", "input", ("b", "t", "hidden")),
    "u": TAP,
    "n": leaf("n", "input", ("b", "t", "hidden")),
    "real": REAL,
}
"""`h` is the edge, `u` the input of the sublayer that ends there, and `n` what the
norm after the residual add would give for it (h itself in pre-norm models)."""

NORM: Mapping[str, Leaf] = {
    "g": leaf("g", "weight", ("hidden",)),
    "c": leaf("c", "weight", ("hidden",)),
}

ROWS = Size.of("inner.rows")
"""How many rows a wrapped method adds, which is known at a site only."""

ATTENTION: Mapping[str, Leaf] = {
    "u": TAP,
    "real": REAL,
    "k": leaf("k", "input", (*TOKEN_AXES, ROWS, "key")),
    "v": leaf("v", "input", (*TOKEN_AXES, ROWS, "value")),
    "start": leaf("start", "input", ()),
}
"""`k` and `v` are rows that every query attends to beside those of the tokens: there
are none before a method, and several methods' rows stand one after the other.  `start`
is the position of the first token."""

INPUT: Mapping[str, Leaf] = {
    "E": leaf("E", "weight", ("vocab", "hidden")),
    "rows": leaf("rows", "input", (ROWS, "hidden")),
    "before": leaf("before", "input", ()),
}
"""`E` is the table of embeddings; `rows` stand among the embedded tokens, and `before`
says before which: there are none before a method."""
PARAM: Mapping[str, Leaf] = {"p": leaf("p", "param", (ast.REST,))}
"""A tensor that a wrapped method trains; its axes are known at a site only."""

PLACES: Mapping[str, Mapping[str, Leaf]] = {
    "linear": LINEAR,
    "hidden": HIDDEN,
    "norm": NORM,
    "attention": ATTENTION,
    "model": {},
    "input": INPUT,
    "param": PARAM,
    "side": {},
}

ROW_TARGETS = ("k", "v")
"""What rules of an attention add to, rather than replace."""

READABLE: Mapping[str, Mapping[str, Leaf]] = {
    **PLACES,
    "attention": {n: ATTENTION[n] for n in ("u", "real", "start")},
    "input": {"E": INPUT["E"]},
}
"""What has a value before any method."""

TARGETS: Mapping[str, tuple[str, ...]] = {
    "linear": ("W", "bias", "x", "y"),
    "hidden": ("h",),
    "norm": ("g", "c"),
    "attention": ("k", "v", "start"),
    "model": (),
    "input": ("rows", "before"),
    "param": ("p",),
    "side": (),
}
"""What rules may rewrite."""

AXES: Mapping[str, tuple[str, ...]] = {
    "linear": ("out", "in"),
    "hidden": ("hidden",),
    "norm": ("hidden",),
    "attention": ("hidden", "heads", "kv_heads", "key", "value"),
    "model": (),
    "input": ("hidden", "vocab"),
    "param": (),
    "side": (),
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
