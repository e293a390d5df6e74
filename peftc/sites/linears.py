"""Every use of a matrix parameter, whatever its spelling.

In: a graph and the parameter paths of its placeholders.  Out: `Linear` for products
`y = x W^T (+ bias)` with one two-dimensional parameter, or one stack of matrices for
experts, the bias being added by the same operator or the next; `EmbeddingAnchor` for
rows of a table; and, as `opaque`, products with parameters that are not of that form
(convolutions, a product that is read with and without a bias).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import fx

from peftc.sites import ops
from peftc.sites.anchors import EmbeddingAnchor, LinearAnchor
from peftc.sites.flow import strip
from peftc.sites.layouts import LAYOUTS, is_turned
from peftc.sites.pieces import piece_of
from peftc.sites.stacks import PICKS, find_stack, pick

if TYPE_CHECKING:
    from collections.abc import Mapping

_FLATTENING = frozenset(("view", "reshape", "flatten", "unflatten"))
_STACK_LAYOUTS = LAYOUTS | ops.PIECES | frozenset(("view", "reshape", "index"))
"""How one expert's matrix is taken from a stack of them."""


@dataclass(frozen=True)
class Linear:
    """One product with a matrix parameter, or with a stack of them; `out` x `in`
    whatever the storage."""

    anchor: LinearAnchor
    transposed: bool

    @property
    def call(self) -> fx.Node:
        """The node of the product."""
        return self.anchor.call

    @property
    def inside(self) -> int:
        """The number of input channels."""
        return ops.shape(self.anchor.weight)[-2 if self.transposed else -1]

    @property
    def outside(self) -> int:
        """The number of output channels."""
        size = ops.shape(self.anchor.weight)[-1 if self.transposed else -2]
        start, stop = self.anchor.rows or (0, size)
        return stop - start

    @property
    def experts(self) -> int:
        """The number of matrices in a stack; 0 for a plain one."""
        is_stack = self.anchor.routing is not None
        return ops.shape(self.anchor.weight)[0] if is_stack else 0


@dataclass(frozen=True)
class Products:
    """All products of a graph with its parameters, by their node."""

    linears: dict[fx.Node, Linear]
    gathers: dict[fx.Node, EmbeddingAnchor]
    opaque: dict[fx.Node, tuple[fx.Node, ...]]
    """Products of another form, with the parameters that enter them."""
    picks: set[fx.Node] = field(default_factory=set)
    """Rows of a parameter, by numbers in a tensor (biases of experts)."""
    parameters: frozenset[fx.Node] = frozenset()
    """All that the graph reads."""

    def is_product(self, node: fx.Node) -> bool:
        """Whether a matrix of parameters enters here."""
        return node in self.linears or node in self.opaque


def find_products(graph: fx.Graph, names: Mapping[fx.Node, str]) -> Products:
    """Read the products off a graph."""
    found = Products({}, {}, {}, parameters=frozenset(names))
    for node in graph.nodes:
        operator = ops.name(node)
        if operator == "embedding" or _is_row_picked(node, names):
            _note_gather(node, names, found)
        elif operator in ops.PRODUCTS:
            _note_product(node, names, found)
        elif operator in PICKS and pick(node)[0] in names:
            found.picks.add(node)
    return found


def _is_row_picked(node: fx.Node, names: Mapping[fx.Node, str]) -> bool:
    """Whether rows of a matrix are looked up by numbers, `table[index]`, that are no
    choice made of values (of experts)."""
    if ops.name(node) != "getitem":
        return False
    table, index = ops.operands(node)
    if not isinstance(index, fx.Node) or ops.dtype(index) != "int64":
        return False
    return table in names and len(ops.shape(table)) == 2 and not _is_chosen(index)


def _is_chosen(index: fx.Node) -> bool:
    seen: set[fx.Node] = set()
    todo = [index]
    while todo:
        node = todo.pop()
        if ops.name(node) in ops.CHOICES:
            return True
        if node not in seen:
            seen.add(node)
            todo.extend(ops.inputs(node))
    return False


def _note_gather(node: fx.Node, names: Mapping[fx.Node, str], found: Products) -> None:
    # F.embedding takes the index first, aten.embedding the table.
    first, second = ops.operands(node)
    nodes = [n for n in (first, second) if isinstance(n, fx.Node)]
    table = next((n for n in nodes if n in names), None)
    if table is not None and len(nodes) == 2:
        index = nodes[0] if nodes[1] is table else nodes[1]
        found.gathers[node] = EmbeddingAnchor(node, index, table)


def _note_product(node: fx.Node, names: Mapping[fx.Node, str], found: Products) -> None:
    linear = _linear(node, names)
    if linear is not None:
        found.linears[node] = linear
        return
    entering = (n for given in ops.inputs(node) for n in _joined(given))
    parameters = tuple(n for n in entering if n in names and len(ops.shape(n)) > 1)
    if parameters:
        found.opaque[node] = parameters


def _joined(value: fx.Node) -> tuple[fx.Node, ...]:
    """What a matrix is laid out from, put together from several or not."""
    value = strip(value, _STACK_LAYOUTS)
    if ops.name(value) not in ("cat", "stack"):
        return (value,)
    return tuple(strip(part, _STACK_LAYOUTS) for part in ops.inputs(value))


def _linear(node: fx.Node, names: Mapping[fx.Node, str]) -> Linear | None:
    stack = find_stack(node, names)
    if stack is not None:
        return Linear(*stack)
    parts = _parts(node)
    if parts is None:
        return None
    x, matrix, bias, reads_out_in = parts
    whole = strip(matrix, LAYOUTS)
    turned = is_turned(matrix, whole) == reads_out_in
    weight = piece_of(whole, names)
    if weight is None or len(ops.shape(whole)) != 2 or (weight.rows and turned):
        return None
    offset = None if bias is None else piece_of(bias, names)
    if bias is not None and (offset is None or offset.rows != weight.rows):
        return None
    bias = None if offset is None else offset.parameter
    source, y = _batched(x, node)
    biased = [] if bias else _biased_later(y, names)
    if biased and len(y.users) > 1:
        return None
    if biased:
        ((y, bias),) = biased
    rows = weight.rows
    anchor = LinearAnchor(node, source, y, weight.parameter, bias, rows=rows)
    return Linear(anchor, turned)


def _parts(
    node: fx.Node,
) -> tuple[fx.Node, fx.Node, fx.Node | None, bool] | None:
    """x, the matrix, the bias, and whether the matrix is used as [out, in]."""
    operator = ops.name(node)
    if operator == "linear":
        x, matrix = ops.argument(node, 0, "input"), ops.argument(node, 1, "weight")
        bias = ops.argument(node, 2, "bias")
    elif operator == "addmm":
        bias = ops.argument(node, 0, "input")
        x, matrix = ops.argument(node, 1, "mat1"), ops.argument(node, 2, "mat2")
        if any(node.kwargs.get(k, 1) != 1 for k in ("alpha", "beta")):
            return None
    elif operator in ("matmul", "mm"):
        x, matrix = (
            ops.argument(node, 0, "input"),
            ops.argument(node, 1, "other", "mat2"),
        )
        bias = None
    else:
        return None
    if not isinstance(x, fx.Node) or not isinstance(matrix, fx.Node):
        return None
    return x, matrix, bias, operator == "linear"


def _biased_later(
    y: fx.Node, names: Mapping[fx.Node, str]
) -> list[tuple[fx.Node, fx.Node]]:
    """The sums in which a parameter [out] is added to a product, with the parameter."""
    sums = (n for n in y.users if ops.name(n) == "add" and "alpha" not in n.kwargs)
    pairs = ((add, n) for add in sums for n in ops.inputs(add) if n in names)
    return [(add, n) for add, n in pairs if ops.shape(n) == ops.shape(y)[-1:]]


def _batched(x: fx.Node, node: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Input and output of a product [rows, out] with the batch axes that views around
    it take away and give back, or as they are."""
    users = tuple(node.users)
    is_flat = len(ops.shape(node)) == 2 and ops.name(x) in _FLATTENING
    if not is_flat or len(users) != 1 or ops.name(users[0]) not in _FLATTENING:
        return x, node
    source, (y,) = ops.inputs(x)[0], users
    lead = ops.shape(source)[:-1]
    sizes = (*lead, ops.shape(x)[-1]), (*lead, ops.shape(node)[-1])
    same = sizes == (ops.shape(source), ops.shape(y))
    return (source, y) if same else (x, node)
