"""The base product: W v and W v + bias as values of the linear's own operation.

In: the terms of an activation at a linear site.  Out: terms in which c F (W v), with
c F bias beside it, is c F times `base(v)`, and other W v are `product(v)`; `base(x)` is
the leaf y, the linear's own output, so that it is neither computed twice nor rounded
otherwise than in the base model.

W, bias, v: [out, in], [out], [b, t, in].  F: what else multiplies, over any axes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.ir import Call, Labels, Leaf, Literal, Node, View
from peftc.expr.normal import Factor, Term, TermKey, canonical, product_node
from peftc.expr.places import TOKEN_AXES, over_tokens
from peftc.expr.sizes import product

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.sizes import Size


@dataclass(frozen=True)
class BaseLinear:
    """The leaves of a linear site, with numbers for sizes; no `bias` if it has none."""

    weight: Leaf
    bias: Leaf | None
    x: Leaf
    y: Leaf

    @staticmethod
    def at(env: Mapping[str, int], biased: bool) -> BaseLinear:
        """The leaves at a site with these sizes."""
        rows, columns = env["out"], env["in"]
        return BaseLinear(
            ir.leaf("W", "weight", (rows, columns)),
            ir.leaf("bias", "weight", (rows,)) if biased else None,
            ir.leaf("x", "input", (*TOKEN_AXES, columns)),
            ir.leaf("y", "input", (*TOKEN_AXES, rows)),
        )

    def use(self, terms: Sequence[Term]) -> list[Term]:
        """The terms with base products instead of W and, where it pairs, bias."""
        found = [(term, self._find_product(term)) for term in terms]
        biases = {
            key: term
            for term, product in found
            if product is None and (key := self._bias_key(term))
        }
        order = sorted(range(len(found)), key=lambda i: self._is_far(found[i][1]))
        result = dict(enumerate(terms))
        for i in order:
            term, one = found[i]
            if one is None:
                continue
            partner = biases.get(one.key(self.y))
            paired = partner is not None and partner.coef == term.coef
            if partner is not None and paired:
                del biases[one.key(self.y)]
                result = {k: t for k, t in result.items() if t is not partner}
            whole = paired or self.bias is None
            result[i] = one.term(self._value(one.input, whole))
        return list(result.values())

    def _is_far(self, one: Product | None) -> bool:
        return one is None or one.input is not self.x

    def _value(self, v: Node, whole: bool) -> Node:
        if whole and v is self.x:
            return self.y
        return ir.call("base" if whole else "product", (v,), (), self.y.axes)

    def _find_product(self, term: Term) -> Product | None:
        """W times an activation in a term, if it holds W once and nothing between."""
        hits = [f for f in term.factors if _unviewed(f[0]) is self.weight]
        if len(hits) != 1:
            return None
        (hit,) = hits
        rows = _prefix(hit[0], self.weight.axes[0])
        if rows is None:
            return None
        outs, ins = hit[1][:rows], hit[1][rows:]
        inner = _reached(term, hit, ins)
        tokens = _tokens(term)
        outside = [f for f in term.factors if f is not hit and f not in inner]
        around = {label for _, labels in outside for label in labels} | set(term.out)
        within = {label for _, labels in inner for label in labels}
        closed = not within & (around | set(outs)) - set(tokens)
        if len(tokens) != 2 or not within.issuperset(tokens) or not closed:
            return None
        v = product_node(inner, (*tokens, *ins), self.x.axes)
        return Product(term, tuple(outside), v, (*tokens, *outs))

    def _bias_key(self, term: Term) -> TermKey | None:
        hits = [f for f in term.factors if _unviewed(f[0]) is self.bias]
        tokens = _tokens(term)
        if len(hits) != 1 or len(tokens) != 2:
            return None
        (hit,) = hits
        rest = tuple(f for f in term.factors if f is not hit)
        return Product(term, rest, self.x, (*tokens, *hit[1])).key(self.y)

    def reuse(self, roots: Sequence[Node]) -> list[Node]:
        """`product(v)` as `base(v)` - bias wherever the latter is computed as well."""
        if self.bias is None:
            return list(roots)
        nodes = ir.walk(*roots)
        offset = over_tokens(self.bias)
        mapping: dict[Node, Node] = {}
        for node in nodes:
            if isinstance(node, Call) and node.fn == "product":
                whole = self._value(node.operands[0], whole=True)
                if whole in nodes:
                    mapping[node] = ir.add((whole, offset), (1.0, -1.0))
        return ir.replace(roots, mapping) if mapping else list(roots)


@dataclass(frozen=True)
class Product:
    """A term as F times W `input`, whose axes have `labels`."""

    source: Term
    cofactor: tuple[Factor, ...]
    input: Node
    labels: Labels

    def term(self, value: Node) -> Term:
        """The term with `value` for the product."""
        node = ir.view(value, self.source.axes(self.labels))
        factors = _needed((*self.cofactor, (node, self.labels)))
        return replace(self.source, factors=factors)

    def key(self, value: Leaf) -> TermKey:
        """Equal for products with equal cofactors."""
        return canonical(self.term(value).factors, self.source.out)


def _needed(factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """The factors without ones over labels that others carry."""
    carried = {
        label
        for node, labels in factors
        if not isinstance(node, Literal)
        for label in labels
    }
    return tuple(
        f
        for f in factors
        if not isinstance(f[0], Literal) or not carried.issuperset(f[1])
    )


def _unviewed(node: Node) -> Node:
    return node.operands[0] if isinstance(node, View) else node


def _prefix(node: Node, axis: Size) -> int | None:
    """How many leading axes of a matrix, or of a view of one, are its first axis.

    Where that has a single element, as many axes of one element as there are before
    the last.
    """
    if not isinstance(node, View):
        return 1
    counts = range(len(node.axes) + 1)
    fitting = [n for n in counts if product(node.axes[:n]) == axis]
    inner = [n for n in fitting if n < len(node.axes)]
    return max(inner or fitting, default=None)


def _tokens(term: Term) -> Labels:
    """The token labels of the result, sample axis first."""
    labels = [label for label in term.out if term.size[label] in TOKEN_AXES]
    return tuple(sorted(labels, key=lambda n: TOKEN_AXES.index(term.size[n])))


def _reached(term: Term, start: Factor, labels: Labels) -> list[Factor]:
    """The factors connected with `start` through `labels` by summed labels."""
    reached: list[Factor] = []
    seen, border = set(term.out), set(labels)
    while border:
        seen |= border
        more = [
            factor
            for factor in term.factors
            if factor is not start and factor not in reached and border & set(factor[1])
        ]
        reached += more
        border = {label for _, row in more for label in row} - seen
    return reached
