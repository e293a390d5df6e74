"""Products with a stack of matrices, one for each expert.

In: a product node and the parameter paths of placeholders.  Out: the anchor of a linear
whose weight [experts, out, in] (or [experts, in, out]) is one parameter, with how its
rows find their expert.  Three spellings are known: a grouped product over rows that are
sorted by expert, a batched product with the matrix picked for each row, and a batched
product in which every expert has rows of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from torch import fx

from peftc.sites import ops
from peftc.sites.anchors import LinearAnchor, Routing
from peftc.sites.flow import strip
from peftc.sites.layouts import LAYOUTS, is_turned

if TYPE_CHECKING:
    from collections.abc import Mapping

PICKS = frozenset(("getitem", "index", "index_select"))
"""How the matrices, or the biases, of each row's expert are taken from a stack."""

Names: TypeAlias = "Mapping[fx.Node, str]"


def find_stack(node: fx.Node, names: Names) -> tuple[LinearAnchor, bool] | None:
    """The linear of a product with a stack, and whether it is stored [in, out]."""
    operator = ops.name(node)
    if operator in ops.GROUPED:
        return _grouped(node, names)
    if operator in ("bmm", "matmul"):
        left, right = ops.argument(node, 0, "input"), ops.argument(node, 1, "mat2")
        if isinstance(left, fx.Node) and isinstance(right, fx.Node):
            return _batched(node, left, right, names)
    return None


def _grouped(node: fx.Node, names: Names) -> tuple[LinearAnchor, bool] | None:
    x, matrices = ops.argument(node, 0, "input"), ops.argument(node, 1, "weight")
    ends = ops.argument(node, 2, "offs")
    if not all(isinstance(n, fx.Node) for n in (x, matrices, ends)):
        return None
    weight = strip(matrices, LAYOUTS)
    if len(ops.shape(x)) != 2 or not _is_stack(weight, 3, names):
        return None
    anchor = _anchor(node, (x, node), weight, Routing("grouped", ends), names)
    return anchor, not is_turned(matrices, weight)


def _batched(
    node: fx.Node, left: fx.Node, right: fx.Node, names: Names
) -> tuple[LinearAnchor, bool] | None:
    """`bmm(x, W[in, out])`, or `bmm(W[out, in], x)`."""
    for matrices, x, is_left in ((right, left, False), (left, right, True)):
        weight, index, turned = _taken(matrices)
        if not _is_stack(weight, 3, names):
            continue
        anchor = (
            _each(node, x, weight, names)
            if index is None and not is_left
            else _single_rows(node, x, weight, index, names)
        )
        return None if anchor is None else (anchor, turned == is_left)
    return None


def _taken(matrices: fx.Node) -> tuple[fx.Node, fx.Node | None, bool]:
    """The parameter, the experts whose matrices are picked, whether turned."""
    inner = strip(matrices, LAYOUTS)
    turned = is_turned(matrices, inner)
    source, index = pick(inner)
    if index is None:
        return inner, None, turned
    weight = strip(source, LAYOUTS)
    return weight, index, turned ^ is_turned(source, weight)


def pick(node: fx.Node) -> tuple[fx.Node, fx.Node | None]:
    """What a node takes rows of, and by which numbers; the node itself if it is no such
    node."""
    last = ops.argument(node, len(node.args) - 1) if ops.name(node) in PICKS else None
    if not isinstance(last, fx.Node) or len(ops.shape(last)) != 1:
        return node, None
    return ops.inputs(node)[0], last


def _is_stack(node: fx.Node, rank: int, names: Names) -> bool:
    return node in names and len(ops.shape(node)) == rank


def _each(
    node: fx.Node, x: fx.Node, weight: fx.Node, names: Names
) -> LinearAnchor | None:
    if len(ops.shape(x)) != 3 or ops.shape(x)[0] != ops.shape(weight)[0]:
        return None
    return _anchor(node, (x, node), weight, Routing("each"), names)


def _single_rows(
    node: fx.Node, x: fx.Node, weight: fx.Node, index: fx.Node | None, names: Names
) -> LinearAnchor | None:
    """A product of one row with the matrix that was picked for it."""
    users = tuple(node.users)
    is_row = ops.name(x) == "unsqueeze" and len(ops.shape(x)) == 3
    is_again = len(users) == 1 and ops.name(users[0]) == "squeeze"
    if index is None or not is_row or not is_again or len(ops.shape(users[0])) != 2:
        return None
    ends = (ops.inputs(x)[0], users[0])
    return _anchor(node, ends, weight, Routing("picked", index), names)


def _anchor(
    call: fx.Node,
    ends: tuple[fx.Node, fx.Node],
    weight: fx.Node,
    routing: Routing,
    names: Names,
) -> LinearAnchor:
    """The anchor between the values `ends`, with the bias that is added next."""
    x, y = ends
    for user in y.users:
        bias = _bias(user, y, routing, names)
        if bias is None:
            continue
        if ops.is_in_place(user):
            return LinearAnchor(call, x, y, weight, bias, routing, user)
        if len(y.users) == 1:
            return LinearAnchor(call, x, user, weight, bias, routing)
    return LinearAnchor(call, x, y, weight, None, routing)


def _bias(user: fx.Node, y: fx.Node, routing: Routing, names: Names) -> fx.Node | None:
    """The stack of biases whose rows a user of a product adds to it."""
    if ops.name(user) != "add":
        return None
    added = next((n for n in ops.inputs(user) if n is not y), y)
    source, index = pick(strip(added, ops.VIEWS | ops.CASTS))
    bias = strip(source, LAYOUTS)
    if not _is_stack(bias, 2, names) or not _is_of_rows(index, routing):
        return None
    return bias


def _is_of_rows(index: fx.Node | None, routing: Routing) -> bool:
    """Whether these numbers are the experts of the rows."""
    if index is routing.index:
        return True
    # The ends of sorted groups are counted from the experts of the rows.
    node = routing.index
    while node is not None and node is not index and ops.is_unary(node):
        (node,) = ops.inputs(node)
    return index is not None and node is index
