"""Norms: layer norm and RMS norm, as one operator or spelt out.

In: a graph and the parameter paths of its placeholders.  Out: one `Norm` per use, with
the value it reads, the value it gives, and its gain and offset.  Spelt out means
`x * rsqrt(mean(x^2) + eps)` times a vector made of one parameter (`g`, `1 + g`), with
any casts; in a layer norm, x is `x - mean(x)`.
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
        elif operator == "rsqrt" or _is_inverse_root(node):
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
        if ops.name(scaled) != "mul":
            continue
        other = next((n for n in ops.inputs(scaled) if n is not root), None)
        if other is not None and _is_same(strip(other, ops.CASTS), x):
            return _with_gain(x, scaled, names)
    return None


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
    """Follow the normalised value through casts to the product with its gain."""
    y = _through_casts(scaled)
    for user in y.users:
        if ops.name(user) != "mul":
            continue
        other = next((n for n in ops.inputs(user) if n is not y), None)
        gain = None if other is None else _parameter_of(other, names)
        if gain is not None and len(ops.shape(gain)) == 1:
            return Norm(x, _through_casts(user), gain, None, is_call=False)
    return Norm(x, y, None, None, is_call=False)


def _through_casts(node: fx.Node) -> fx.Node:
    """The last of a run of casts that are each the only reader of the one before."""
    while len(node.users) == 1 and ops.name(next(iter(node.users))) in ops.CASTS:
        node = next(iter(node.users))
    return node


def _parameter_of(node: fx.Node, names: Mapping[fx.Node, str]) -> fx.Node | None:
    """The parameter of `g`, `cast(g)`, `1 + g`."""
    node = strip(node, ops.CASTS)
    while ops.name(node) == "add" and ops.is_unary(node):
        node = strip(ops.inputs(node)[0], ops.CASTS)
    return node if node in names else None
