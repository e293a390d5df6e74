"""Reverse mode on expressions: the adjoint of an expression is an expression.

In: outputs, each with its adjoint (the derivative of a scalar by it), and leaves.  Out:
the adjoint of each leaf, literal zeros where nothing depends on it.  Nothing is
ordered or simplified here: adjoints are planned like any other expression.

g is the adjoint of a node, by its axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.elementwise_derivatives import DERIVATIVES, scaled, times
from peftc.expr.ir import Add, Call, Ein, Literal, Map, Node, View

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

WITHOUT = {
    "bilstm": "a recurrent layer has no derivative as an expression",
    "drop": "its zeros are drawn anew by each use; a mask has to take its place",
}
"""Functions whose derivative is no expression, and why."""


class NoDerivativeError(Exception):
    """A function on the way to a leaf has no derivative: which, and why."""


def adjoints(
    outputs: Sequence[tuple[Node, Node]], leaves: Sequence[Node]
) -> list[Node]:
    """The adjoint of each leaf, for outputs with their adjoints.

    Raises:
        NoDerivativeError: if an output depends on a leaf through one of WITHOUT.
    """
    nodes = ir.walk(*(output for output, _ in outputs))
    found: dict[Node, list[Node]] = {}
    for output, seed in outputs:
        found.setdefault(output, []).append(seed)
    dependent = _dependent(nodes, leaves)
    for node in reversed(nodes):
        if node in found and node in dependent:
            for operand, part in _parts(node, ir.add(found[node]), dependent):
                found.setdefault(operand, []).append(part)
    zeros = {leaf: [ir.literal(0, leaf.axes)] for leaf in leaves}
    return [ir.add(found.get(leaf, zeros[leaf])) for leaf in leaves]


def sums_of_slopes(outputs: Sequence[Node]) -> set[Node]:
    """The sums in derivatives of the elementwise functions of outputs: 1 - y^2, ..."""
    nodes = ir.walk(*outputs)
    maps = (node for node in nodes if isinstance(node, Map))
    slopes = [DERIVATIVES[node.fn](node.operands[0], node) for node in maps]
    return {
        node for node in set(ir.walk(*slopes)) - set(nodes) if isinstance(node, Add)
    }


def _dependent(nodes: Sequence[Node], leaves: Sequence[Node]) -> set[Node]:
    """The nodes that depend on a leaf, the leaves among them."""
    dependent = set(leaves)
    for node in nodes:
        if not dependent.isdisjoint(node.operands):
            dependent.add(node)
    return dependent


def _parts(node: Node, g: Node, dependent: set[Node]) -> list[tuple[Node, Node]]:
    """The operands that depend on a leaf, with what this use adds to their adjoint."""
    parts = (
        (operand, _adjoint(node, i, g))
        for i, operand in enumerate(node.operands)
        if operand in dependent
    )
    return [(o, part) for o, part in parts if not is_zero(part)]


def is_zero(node: Node) -> bool:
    """Whether a node is nothing but zeros."""
    return isinstance(node, Literal) and node.value == 0


def _adjoint(node: Node, i: int, g: Node) -> Node:
    """What the use as operand i adds to the adjoint of that operand."""
    if isinstance(node, Ein):
        return _of_product(node, i, g)
    if isinstance(node, Add):
        return scaled(g, node.coefs[i])
    if isinstance(node, View):
        return ir.view(g, node.operands[0].axes)
    if isinstance(node, Map):
        return times(g, DERIVATIVES[node.fn](node.operands[0], node))
    assert isinstance(node, Call)
    if node.fn not in CALLS:
        why = WITHOUT.get(node.fn, "there is no rule for it")
        raise NoDerivativeError(f"{node.fn}: {why}")
    return CALLS[node.fn](node, i, g)


# --- products ---------------------------------------------------------------------


def _of_product(node: Ein, i: int, g: Node) -> Node:
    """The same product with g in the operand's place; ones for what only it carries."""
    pairs = list(zip(node.operands, node.labels, strict=True))
    operand, row = pairs.pop(i)
    pairs.append((g, node.out))
    carried = {label for _, labels in pairs for label in labels}
    size = dict(zip(row, operand.axes, strict=True))
    missing = tuple(label for label in size if label not in carried)
    pairs.append((ir.literal(1, (size[label] for label in missing)), missing))
    return _on_diagonal(pairs, operand, row)


def _on_diagonal(
    pairs: Sequence[tuple[Node, ir.Labels]], operand: Node, row: ir.Labels
) -> Node:
    """The product by `row`; where a label of it is repeated, zero off the diagonal."""
    nodes = [node for node, _ in pairs]
    labels: list[Sequence[Hashable]] = [labels for _, labels in pairs]
    out: list[Hashable] = []
    for place, label in enumerate(row):
        again = ("again", place)
        out.append(again if label in out else label)
        if out[-1] is again:
            nodes.append(ir.eye(operand.axes[place]))
            labels.append((label, again))
    return ir.ein(nodes, labels, out)


# --- functions of whole tensors ------------------------------------------------------


def _zero(node: Call, i: int, g: Node) -> Node:
    return ir.literal(0, node.operands[i].axes)


def _same(node: Call, i: int, g: Node) -> Node:
    """Of a linear function that is its own transpose."""
    return ir.call(node.fn, (g,), node.attrs, node.operands[i].axes)


def _moved(transpose: str) -> Callable[[Call, int, Node], Node]:
    """Of what moves elements to places: the places have no derivative."""

    def rule(node: Call, i: int, g: Node) -> Node:
        value, places = node.operands
        return (
            _zero(node, i, g) if i else ir.call(transpose, (g, places), (), value.axes)
        )

    return rule


def _of_training(node: Call, i: int, g: Node) -> Node:
    zero = ir.literal(0, g.axes)
    return ir.call("training", (zero, g) if i else (g, zero), (), g.axes)


def _of_solution(node: Call, i: int, g: Node) -> Node:
    """Of X = A^-1 B: B gets A^-T g, and A gets -(A^-T g) X^T."""
    matrix, right = node.operands
    *batch, rows, columns = range(len(matrix.axes))
    inner = len(matrix.axes)
    turned = ir.ein((matrix,), ((*batch, rows, columns),), (*batch, columns, rows))
    into = ir.call("solve", (turned, g), (), right.axes)
    if i:
        return into
    labels = ((*batch, rows, inner), (*batch, columns, inner))
    return scaled(ir.ein((into, node), labels, (*batch, rows, columns)), -1)


def _of_base(node: Call, i: int, g: Node) -> Node:
    """W^T g, of the base's own linear."""
    return ir.call("back", (g,), (), node.operands[0].axes)


CALLS: Mapping[str, Callable[[Call, int, Node], Node]] = {
    "base": _of_base,
    "detach": _zero,
    "fit": _same,
    "fwht": _same,
    "gather": _moved("scatter"),
    "ifft2": _same,
    "permute": _moved("unpermute"),
    "product": _of_base,
    "scatter": _moved("gather"),
    "solve": _of_solution,
    "topmask": _zero,
    "training": _of_training,
}
"""What operand i of a call gets, of the call, i and g."""
