"""Sum-of-products normal form over index labels, and the equality it decides.

`flatten` turns an expression into terms: coef * sum over bound labels of a product of
factors, each an atom with its labels.  An atom is a leaf, a Map, a Call, or a node the
caller cuts.  Views become splits of labels, Kronecker deltas make labels one.  Terms
with equal canonical form are merged, so equal keys mean equal functions.

W, x, y: [out, in], [b, t, in], [b, t, out].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import groupby, permutations, product
from typing import TYPE_CHECKING, TypeAlias

from peftc.expr import ir
from peftc.expr.ir import Add, Axes, Ein, Eye, Labels, Literal, Node, View
from peftc.expr.places import TOKEN_AXES
from peftc.expr.sizes import Size
from peftc.expr.splits import Allocator, Constraint, Mismatch, Splits, align

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

Factor: TypeAlias = "tuple[Node, Labels]"
TermKey: TypeAlias = "tuple[tuple[Node, ...], tuple[Labels, ...], Labels]"

LIMIT = 256
"""Terms of one product, above which it is not distributed."""

DEPTH = 200
"""Nested products, above which the inner ones stay whole."""


@dataclass(frozen=True)
class Term:
    """coef * sum of a product of factors.

    `out` labels the result; it may be split finer than the axes that were asked for.
    """

    coef: float
    factors: tuple[Factor, ...]
    out: Labels
    size: Sequence[Size]

    def axes(self, labels: Labels) -> Axes:
        """The sizes of labels."""
        return tuple(self.size[label] for label in labels)

    def node(self, axes: Axes) -> Node:
        """The term, without its coefficient, as one product."""
        return product_node(self.factors, self.out, axes)


def product_node(factors: Sequence[Factor], out: Labels, axes: Axes) -> Node:
    """The product of factors as one Ein, viewed as `axes`."""
    nodes = [node for node, _ in factors] or [ir.literal(1)]
    labels = [labels for _, labels in factors] or [()]
    return ir.view(ir.ein(nodes, labels, out), axes)


# --- canonical form ----------------------------------------------------------------


def canonical(factors: Sequence[Factor], out: Labels) -> TermKey:
    """Equal for terms that differ in names of labels and order of factors only."""
    ordered = sorted(factors, key=lambda factor: factor[0].key)
    nodes = tuple(node for node, _ in ordered)
    labels = min(_numbered(labels, out) for labels in _orders(ordered))
    return nodes, labels[:-1], labels[-1]


def _orders(ordered: Sequence[Factor]) -> Iterator[list[Labels]]:
    """The label lists in every order of equal atoms, as far as that is feasible."""
    groups = [
        [labels for _, labels in group] for _, group in groupby(ordered, lambda f: f[0])
    ]
    if math.prod(math.factorial(len(group)) for group in groups) > 720:
        groups = [sorted(group) for group in groups]
        yield [labels for group in groups for labels in group]
        return
    for choice in product(*(permutations(group) for group in groups)):
        yield [labels for group in choice for labels in group]


def _numbered(labels: list[Labels], out: Labels) -> tuple[Labels, ...]:
    number: dict[int, int] = {}
    rows = (out, *labels)
    numbered = [
        tuple(number.setdefault(label, len(number)) for label in row) for row in rows
    ]
    return (*numbered[1:], numbered[0])


# --- flattening --------------------------------------------------------------------

Partial: TypeAlias = "tuple[float, tuple[Factor, ...], tuple[Constraint, ...], Labels]"
"""Coefficient, factors, constraints, and labels that are summed over."""


def flatten(
    root: Node, cut: Callable[[Node], bool] = lambda _: False, limit: int = LIMIT
) -> list[Term]:
    """The terms of `root`; nodes below it with `cut(node)` stay whole.

    Raises:
        Mismatch: if views do not nest, or a product has more than `limit` terms.
    """
    allocator = Allocator()
    out = allocator.many(root.axes)
    partials = _Flattening(allocator, root, cut, limit).expand(root, out, 0)
    merged: dict[TermKey, Term] = {}
    for partial in partials:
        term = _settle(partial, out, Allocator(list(allocator.size)))
        key = canonical(term.factors, term.out)
        known = merged.get(key)
        merged[key] = replace(known, coef=known.coef + term.coef) if known else term
    return [term for term in merged.values() if term.coef]


@dataclass(frozen=True)
class _Flattening:
    allocator: Allocator
    root: Node
    cut: Callable[[Node], bool]
    limit: int

    def expand(self, node: Node, labels: Labels, depth: int) -> list[Partial]:
        """The terms of a node whose axes have these labels."""
        if isinstance(node, Literal):
            return [(node.value, (), (), ())] if node.value else []
        if isinstance(node, Eye):
            return [(1.0, (), ((labels[0], labels[1:]),), ())]
        if depth > DEPTH or (node is not self.root and self.cut(node)):
            return [(1.0, ((node, labels),), (), ())]
        if isinstance(node, Add):
            return self._sum(node, labels, depth)
        if isinstance(node, Ein):
            return self._product(node, labels, depth)
        if isinstance(node, View):
            return self._view(node, labels, depth)
        return [(1.0, ((node, labels),), (), ())]

    def _sum(self, node: Add, labels: Labels, depth: int) -> list[Partial]:
        return [
            (coef * value, factors, constraints, bound)
            for operand, coef in zip(node.operands, node.coefs, strict=True)
            for value, factors, constraints, bound in self.expand(
                operand, labels, depth + 1
            )
        ]

    def _product(self, node: Ein, labels: Labels, depth: int) -> list[Partial]:
        names: dict[int, int] = {}
        same: list[Constraint] = []
        for inner, label in zip(node.out, labels, strict=True):
            if names.setdefault(inner, label) != label:
                same.append((names[inner], (label,)))
        bound = self._bind(node, names)
        parts: list[Partial] = [(1.0, (), tuple(same), bound)]
        for operand, inner_labels in zip(node.operands, node.labels, strict=True):
            these = tuple(names[label] for label in inner_labels)
            more = self.expand(operand, these, depth + 1)
            if len(parts) * len(more) > self.limit:
                raise Mismatch("too many terms")
            parts = [
                (a * b, f + g, c + d, m + n)
                for a, f, c, m in parts
                for b, g, d, n in more
            ]
        return parts

    def _bind(self, node: Ein, names: dict[int, int]) -> Labels:
        """Give labels to the summed ones of a product."""
        bound = []
        for operand, labels in zip(node.operands, node.labels, strict=True):
            for axis, label in zip(operand.axes, labels, strict=True):
                if label not in names:
                    names[label] = self.allocator.fresh(axis)
                    bound.append(names[label])
        return tuple(bound)

    def _view(self, node: View, labels: Labels, depth: int) -> list[Partial]:
        (operand,) = node.operands
        constraints, inner = align(self.allocator, labels, operand.axes)
        return [
            (coef, factors, (*more, *constraints), bound)
            for coef, factors, more, bound in self.expand(operand, inner, depth + 1)
        ]


def _settle(partial: Partial, out: Labels, allocator: Allocator) -> Term:
    """A term with its constraints solved and gone."""
    coef, atoms, constraints, bound = partial
    splits = Splits(allocator)
    for constraint in sorted(constraints, key=lambda c: len(c[1]) > 1):
        splits.require(constraint)
    size = allocator.size
    factors = [_refined(node, labels, splits, size) for node, labels in atoms]
    finest = [leaf for label in out for leaf in splits.leaves(label)]
    result = _off_diagonal(finest, factors, allocator)
    carried = {label for _, labels in factors for label in labels}
    _fill(tuple(dict.fromkeys(x for x in result if x not in carried)), factors, size)
    for label in dict.fromkeys(x for b in bound for x in splits.leaves(b)):
        if label in carried or label in result:
            continue
        number = size[label].number
        coef *= number or 1
        if number is None:
            _fill((label,), factors, size)
    return Term(coef, tuple(factors), result, size)


def _refined(
    node: Node, labels: Labels, splits: Splits, size: Sequence[Size]
) -> Factor:
    finest = tuple(leaf for label in labels for leaf in splits.leaves(label))
    if len(finest) == len(labels):
        return node, finest
    axes = tuple(size[label] for label in finest)
    if isinstance(node, Add) and not set(TOKEN_AXES) & set(axes):
        views = [ir.view(operand, axes) for operand in node.operands]
        return ir.add(views, node.coefs), finest
    return ir.view(node, axes), finest


def _off_diagonal(
    finest: list[int], factors: list[Factor], allocator: Allocator
) -> Labels:
    """The result's labels made distinct, an identity matrix for each that was not."""
    result: list[int] = []
    for label in finest:
        if label in result:
            axis = allocator.size[label]
            other = allocator.fresh(axis)
            factors.append((ir.eye(axis), (label, other)))
            label = other
        result.append(label)
    return tuple(result)


def _fill(missing: Labels, factors: list[Factor], size: Sequence[Size]) -> None:
    if missing:
        ones = ir.literal(1, (size[label] for label in missing))
        factors.append((ones, missing))


# --- numbers for sizes ---------------------------------------------------------------


def concrete(
    roots: Sequence[Node],
    env: Mapping[str, int],
    origins: Mapping[Node, Any] | None = None,
) -> tuple[list[Node], dict[Node, Any]]:
    """The roots with numbers for sizes, and their origins.

    Token axes stay, and sizes with names that `env` does not have.

    Raises:
        NotWhole: if a size is no positive whole number.
    """
    new: dict[Node, Node] = {}
    table: dict[Node, Any] = {}
    for node in ir.walk(*roots):
        new[node] = _concrete(node, [new[operand] for operand in node.operands], env)
        if origins and node in origins:
            table.setdefault(new[node], origins[node])
    return [new[root] for root in roots], table


def _concrete(node: Node, operands: list[Node], env: Mapping[str, int]) -> Node:
    if isinstance(node, (Add, Ein, ir.Map)):
        return ir.rebuild(node, operands)
    axes = tuple(_number(axis, env) for axis in node.axes)
    if isinstance(node, ir.Leaf):
        return ir.leaf(node.name, node.kind, axes)
    if isinstance(node, Literal):
        return ir.literal(node.value, axes)
    if isinstance(node, Eye):
        return ir.eye(axes[0])
    if isinstance(node, View):
        return ir.view(operands[0], axes)
    assert isinstance(node, ir.Call)
    return ir.call(node.fn, operands, node.attrs, axes)


def _number(axis: Size, env: Mapping[str, int]) -> Size:
    if axis in TOKEN_AXES or not axis.symbols <= env.keys():
        return axis
    return Size.of(axis.value(env))


def equal(a: Node, b: Node, env: Mapping[str, int]) -> bool:
    """Whether two expressions have one normal form where sizes have these numbers.

    Decides equality of functions that are sums of products of their atoms; what is
    inside a Map or Call must be structurally equal.
    """
    (left, right), _ = concrete((a, b), env)
    return left.axes == right.axes and _match(_table(left), _table(right))


def _table(node: Node) -> dict[TermKey, float]:
    return {canonical(t.factors, t.out): t.coef for t in flatten(node)}


def _match(left: dict[TermKey, float], right: dict[TermKey, float]) -> bool:
    if left.keys() != right.keys():
        return False
    return all(math.isclose(left[key], right[key], rel_tol=1e-12) for key in left)
