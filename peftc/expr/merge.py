"""Whether a composed equation can go into the weights, and the weights if it can.

In: the composed expressions of a site.  Out: `Merged`, the new weight and bias as
expressions over the old ones and the added tensors; or `Refusal`, with the reason and
the place in the text.  Dropout is the identity here, and `detach` is looked through.

An activation is affine in the input x if it is M x + c with M and c free of tokens;
that is decided node by node.  M: [features..., in], c: [features...].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from peftc.expr import ir
from peftc.expr.cost import Machine, Measure, has_tokens
from peftc.expr.functions import OUTSIDE_TRAINING
from peftc.expr.ir import Add, Axes, Call, Ein, Leaf, Literal, Map, Node, View
from peftc.expr.normal import concrete
from peftc.expr.order import Planner
from peftc.expr.places import NORM, PLACES, TOKEN_AXES

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from peftc.expr.compose import Composed
    from peftc.syntax.source import Span
    from peftc.view import Site


@dataclass(frozen=True)
class Merged:
    """What takes the place of the weight (of a norm: the gain) and the bias.

    The expressions are ordered for being evaluated as they are.  `bias` is None if
    there is none and none is needed; `creates_bias` if one is needed and there is none.
    """

    weight: Node
    bias: Node | None
    creates_bias: bool


@dataclass(frozen=True)
class Refusal:
    """Why there is no merged weight, and the term that is to blame."""

    reason: str
    span: Span | None = None


def derive_merge(
    composed: Composed, env: Mapping[str, int], site: Site
) -> Merged | Refusal:
    """The merged weight and bias of a site, or why there are none.

    A hidden edge merges into the linear whose output it is; where `env` has no number
    for that linear's `in`, the name stays in the sizes.

    Raises:
        NotWhole: if a size is no positive whole number.
    """
    if composed.kind == "attention":
        return Refusal("queries attend to rows that no weight gives")
    if composed.kind == "input":
        return Refusal("its rows stand among the tokens, where no weight is")
    if composed.kind == "side":
        return Refusal("a network beside the backbone is no weight of it")
    if composed.kind == "norm":
        return _merge_norm(composed, env, bool(site.bias))
    if "h#2" in composed.outputs:
        return Refusal("a norm stands between two of its methods")
    target, source = ("y", "x") if composed.kind == "linear" else ("h", "h")
    leaf = PLACES[composed.kind][source]
    roots, origins = concrete((composed.outputs[target], leaf), env, composed.origins)
    value, given = _strip(roots, origins)
    assert isinstance(given, Leaf)
    affine = _affine(value, given, origins)
    if isinstance(affine, Refusal):
        return affine
    features = _features(value.axes)
    weight = _value(affine.matrix, (*features, given.axes[-1]))
    offset = _value(affine.offset, features)
    if composed.kind == "hidden":
        if not site.weight:
            return Refusal("the edge is not the output of a linear")
        weight, offset = _after_producer(weight, offset, bool(site.bias))
    return _merged(weight, offset, bool(site.bias))


def _after_producer(matrix: Node, offset: Node, biased: bool) -> tuple[Node, Node]:
    """matrix (W x + bias) + offset, for the linear that the edge is the output of."""
    hidden = matrix.axes[-1]
    weight = ir.leaf("W", "weight", (hidden, "in"))
    product = ir.ein((matrix, weight), ("oh", "hi"), "oi")
    if not biased:
        return product, offset
    bias = ir.leaf("bias", "weight", (hidden,))
    return product, ir.add((ir.ein((matrix, bias), ("oh", "h"), "o"), offset))


def _merged(weight: Node, offset: Node, biased: bool) -> Merged:
    planner = Planner(Measure(Machine(), training=False))
    weight, offset = planner.plan([weight, offset])
    needed = not (isinstance(offset, Literal) and offset.value == 0)
    bias = offset if biased or needed else None
    return Merged(weight, bias, creates_bias=needed and not biased)


def _merge_norm(composed: Composed, env: Mapping[str, int], biased: bool) -> Merged:
    gain = composed.outputs.get("g", NORM["g"])
    absent = NORM["c"] if biased else ir.literal(0, NORM["c"].axes)
    offset = composed.outputs.get("c", absent)
    (gain, offset), origins = concrete((gain, offset), env)
    gain, offset = _strip([gain, offset], origins)
    return _merged(gain, offset, biased)


def _strip(roots: Sequence[Node], origins: dict[Node, Span]) -> list[Node]:
    """The roots as they are outside training: without dropout, `detach`, `training`."""
    new: dict[Node, Node] = {}
    for node in ir.walk(*roots):
        operands = [new[operand] for operand in node.operands]
        if isinstance(node, Call) and node.fn in OUTSIDE_TRAINING:
            new[node] = operands[OUTSIDE_TRAINING[node.fn]]
        else:
            new[node] = ir.rebuild(node, operands)
        if node in origins:
            origins.setdefault(new[node], origins[node])
    return [new[root] for root in roots]


# --- affine activations ---------------------------------------------------------------


class _NotAffine(Exception):
    """Raised at the node that is to blame, with the reason."""


class _Affine(NamedTuple):
    """matrix x + offset; None is zero."""

    matrix: Node | None
    offset: Node | None


def _affine(root: Node, x: Leaf, origins: Mapping[Node, Span]) -> _Affine | Refusal:
    """`root` as an affine function of x."""
    nodes = ir.walk(root)
    known: dict[Node, _Affine] = {}
    for node in nodes:
        try:
            known[node] = _affine_node(node, x, known)
        except _NotAffine as error:
            return Refusal(str(error), _span_around(node, nodes, origins))
    return known[root]


def _span_around(
    node: Node, nodes: Sequence[Node], origins: Mapping[Node, Span]
) -> Span | None:
    """The text of a node, or of the smallest node around it that came from a text."""
    for user in nodes[nodes.index(node) :]:
        if user in origins and ir.depends_on(user, {node}):
            return origins[user]
    return None


def _features(axes: Axes) -> Axes:
    return tuple(axis for axis in axes if axis not in TOKEN_AXES)


def _affine_node(node: Node, x: Leaf, known: Mapping[Node, _Affine]) -> _Affine:
    if node is x:
        return _Affine(ir.eye(x.axes[-1]), None)
    if not has_tokens(node):
        return _Affine(None, node)
    if isinstance(node, Leaf):
        raise _NotAffine(f"the result depends on {node.name}")
    if isinstance(node, Literal):
        return _Affine(None, ir.literal(node.value, _features(node.axes)))
    parts = [known[operand] for operand in node.operands]
    if isinstance(node, Add):
        return _sum(node, parts)
    if isinstance(node, Ein):
        return _product(node, parts, x)
    if isinstance(node, View):
        return _viewed(node, parts[0], x)
    assert isinstance(node, (Map, Call))
    if any(part.matrix for part in parts):
        raise _NotAffine(f"{x.name} passes through {node.fn}")
    offsets = [
        _value(part.offset, _features(operand.axes))
        for part, operand in zip(parts, node.operands, strict=True)
    ]
    if isinstance(node, Map):
        return _Affine(None, ir.apply_map(node.fn, *offsets))
    return _Affine(None, ir.call(node.fn, offsets, node.attrs, _features(node.axes)))


def _value(node: Node | None, axes: Axes) -> Node:
    return ir.literal(0, axes) if node is None else node


def _sum(node: Add, parts: Sequence[_Affine]) -> _Affine:
    return _Affine(
        _combined([part.matrix for part in parts], node.coefs),
        _combined([part.offset for part in parts], node.coefs),
    )


def _combined(nodes: Sequence[Node | None], coefs: Sequence[float]) -> Node | None:
    pairs = [(n, c) for n, c in zip(nodes, coefs, strict=True) if n is not None]
    return ir.add([n for n, _ in pairs], [c for _, c in pairs]) if pairs else None


def _viewed(node: View, part: _Affine, x: Leaf) -> _Affine:
    axes = _features(node.axes)
    matrix = part.matrix and ir.view(part.matrix, (*axes, x.axes[-1]))
    return _Affine(matrix, part.offset and ir.view(part.offset, axes))


def _product(node: Ein, parts: Sequence[_Affine], x: Leaf) -> _Affine:
    """At most one factor may depend on x, and none be summed over tokens."""
    if sum(part.matrix is not None for part in parts) > 1:
        raise _NotAffine(f"{x.name} occurs more than once in one product")
    rows = [
        _feature_labels(operand, row, node, x)
        for operand, row in zip(node.operands, node.labels, strict=True)
    ]
    kept = {label for row in rows for label in row}
    out = [label for label in node.out if label in kept]
    matrices = [part.matrix or part.offset for part in parts]
    wide = [
        (*row, "x") if part.matrix else row
        for part, row in zip(parts, rows, strict=True)
    ]
    depends = any(part.matrix for part in parts)
    return _Affine(
        _ein(matrices, wide, [*out, "x"]) if depends else None,
        _ein([part.offset for part in parts], rows, out),
    )


def _feature_labels(
    operand: Node, row: Sequence[int], node: Ein, x: Leaf
) -> tuple[int, ...]:
    pairs = list(zip(operand.axes, row, strict=True))
    if any(a in TOKEN_AXES and label not in node.out for a, label in pairs):
        raise _NotAffine(f"{x.name} is mixed over tokens")
    return tuple(label for a, label in pairs if a not in TOKEN_AXES)


def _ein(
    nodes: Sequence[Node | None],
    rows: Sequence[Sequence[Hashable]],
    out: Sequence[Hashable],
) -> Node | None:
    """The product, or None if a factor is zero."""
    factors = [node for node in nodes if node is not None]
    return ir.ein(factors, rows, out) if len(factors) == len(nodes) else None
