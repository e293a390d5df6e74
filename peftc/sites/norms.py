"""Norms: layer norm and RMS norm, as one operator or spelt out.

In: a graph and the parameter paths of its placeholders.  Out: one `Norm` per use, with
the value it reads, the value it gives, and its gain and offset.  Spelt out means
`x * rsqrt(mean(x^2) + eps)` or `x / sqrt(...)`, times a vector made of one parameter
(`g`, `1 + g`), with any casts, and an offset added or not; in a layer norm, x is
`x - mean(x)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import fx

from peftc.sites import ops
from peftc.sites.flow import strip

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SINGLE = frozenset(ops.NORMS - {"normalize"})
_JOINED = frozenset(("view", "reshape", "flatten"))


@dataclass(frozen=True)
class Norm:
    """One use of a norm: `y` from `x`; a norm without a gain is no site."""

    x: fx.Node
    y: fx.Node
    gain: fx.Node | None
    offset: fx.Node | None
    is_call: bool
    """One operator does it all."""


def find_norms(graph: fx.Graph, names: Mapping[fx.Node, str]) -> tuple[Norm, ...]:
    """The norms of a graph, in its order."""
    return tuple(_norms(graph, names))


def _norms(graph: fx.Graph, names: Mapping[fx.Node, str]) -> Iterator[Norm]:
    for node in graph.nodes:
        operator = ops.name(node)
        if operator in _SINGLE:
            yield _called(node, names)
        elif operator in ("rsqrt", "sqrt") or _is_inverse_root(node):
            spelt = _spelt_out(node, names)
            if spelt is not None:
                yield spelt


def _called(node: fx.Node, names: Mapping[fx.Node, str]) -> Norm:
    x = ops.argument(node, 0, "input")
    gain, offset = ops.argument(node, 2, "weight"), ops.argument(node, 3, "bias")
    y = node
    if ops.name(node).startswith(("native", "_fused")):
        y = next((u for u in node.users if u.args[1:] == (0,)), node)
    return Norm(x, y, _made_of(gain, names), _made_of(offset, names), is_call=True)


def _made_of(vector: object, names: Mapping[fx.Node, str]) -> fx.Node | None:
    return _parameter_of(vector, names) if isinstance(vector, fx.Node) else None


def _is_inverse_root(node: fx.Node) -> bool:
    return ops.name(node) == "pow" and ops.argument(node, 1, "exponent") == -0.5


def _spelt_out(root: fx.Node, names: Mapping[fx.Node, str]) -> Norm | None:
    squared = _mean_of_square(ops.inputs(root)[0])
    if squared is None:
        return None
    x = strip(squared, ops.CASTS)
    for scaled in root.users:
        other = _scaled_by(root, scaled)
        if other is not None and _is_same(strip(other, ops.CASTS), x):
            return _with_gain(_uncentred(x), scaled, names)
    return None


def _scaled_by(root: fx.Node, scaled: fx.Node) -> fx.Node | None:
    """What `scaled` divides by the root, or multiplies by the inverse root."""
    if ops.name(root) != "sqrt":
        others = (n for n in ops.inputs(scaled) if n is not root)
        return next(others, None) if ops.name(scaled) == "mul" else None
    above, below = ops.operands(scaled) if ops.name(scaled) == "div" else (None, None)
    return above if below is root and isinstance(above, fx.Node) else None


def _uncentred(x: fx.Node) -> fx.Node:
    """What a mean was taken off; else the value itself."""
    if ops.name(x) != "sub":
        return x
    whole, mean = ops.operands(x)
    is_mean = isinstance(mean, fx.Node) and ops.name(mean) == "mean"
    return whole if is_mean and ops.inputs(mean) == (whole,) else x


def _is_same(one: fx.Node, other: fx.Node) -> bool:
    """Whether two nodes are one value: models write `x - mean(x)` twice."""
    if one is other:
        return True
    steps = ((n.op, n.target, n.args, n.kwargs) for n in (one, other))
    return one.op != "placeholder" and next(steps) == next(steps)


def _mean_of_square(inside: fx.Node) -> fx.Node | None:
    """x of `mean(x^2) + eps`."""
    if ops.name(inside) == "add" and ops.is_unary(inside):
        inside = ops.inputs(inside)[0]
    if ops.name(inside) != "mean":
        return None
    square = ops.inputs(inside)[0]
    operator = ops.name(square)
    is_square = operator == "square" or (
        operator == "pow" and ops.argument(square, 1, "exponent") == 2
    )
    if operator == "mul" and len(ops.inputs(square)) == 1:
        is_square = len([a for a in square.args if isinstance(a, fx.Node)]) == 2
    return ops.inputs(square)[0] if is_square else None


def _with_gain(x: fx.Node, scaled: fx.Node, names: Mapping[fx.Node, str]) -> Norm:
    """Follow the normalised value to the product with its gain: through casts, and
    views that put the groups together again which were normalised each for itself."""
    y = _through(scaled, ops.CASTS | _JOINED)
    for user in y.users:
        gain = _vector("mul", user, y, names)
        if gain is not None:
            return _with_offset(x, _through(user, ops.CASTS), gain, names)
    return Norm(x, y, None, None, is_call=False)


def _with_offset(
    x: fx.Node, y: fx.Node, gain: fx.Node, names: Mapping[fx.Node, str]
) -> Norm:
    """Go on to the sum with an offset, if it alone reads the product with the gain."""
    for user in y.users if len(y.users) == 1 else ():
        offset = _vector("add", user, y, names)
        if offset is not None:
            return Norm(x, _through(user, ops.CASTS), gain, offset, is_call=False)
    return Norm(x, y, gain, None, is_call=False)


def _vector(
    operator: str, user: fx.Node, y: fx.Node, names: Mapping[fx.Node, str]
) -> fx.Node | None:
    """The parameter vector that `user` multiplies or adds to `y`."""
    others = [n for n in ops.inputs(user) if n is not y]
    if ops.name(user) != operator or len(others) != 1:
        return None
    found = _parameter_of(others[0], names)
    return found if found is not None and len(ops.shape(found)) == 1 else None


def _through(node: fx.Node, operators: frozenset[str]) -> fx.Node:
    """The last of a run of operators, each the only reader of the one before."""
    while len(node.users) == 1 and ops.name(next(iter(node.users))) in operators:
        node = next(iter(node.users))
    return node


def _parameter_of(node: fx.Node, names: Mapping[fx.Node, str]) -> fx.Node | None:
    """The parameter of `g`, `cast(g)`, `1 + g`."""
    node = strip(node, ops.CASTS)
    while ops.name(node) == "add" and ops.is_unary(node):
        node = strip(ops.inputs(node)[0], ops.CASTS)
    return node if node in names else None
