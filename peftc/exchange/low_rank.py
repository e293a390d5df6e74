"""What a site adds to its weight as one low-rank product, found by algebra.

In: a rewrite of a linear.  Out: `Product`, two matrices whose product is all that is
added, whatever the methods are called: every term of the merged weight beside the
weight itself has to fall apart into factors with an input axis and factors with an
output axis.  Several terms stand side by side along the rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch

from peftc.expr import ir
from peftc.expr.ir import Leaf
from peftc.expr.merge import Refusal, derive_merge
from peftc.expr.normal import flatten, product_node
from peftc.expr.sizes import Size
from peftc.plan.equations import composed, environment
from peftc.runtime.evaluate import values_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.ir import Labels, Node
    from peftc.expr.merge import Merged
    from peftc.expr.normal import Factor, Term
    from peftc.plan.types import Rewrite
    from peftc.syntax.ast import Method


@dataclass(frozen=True, eq=False)
class Product:
    """`up @ down` is added to the weight.  down: [rank, in], up: [out, rank]."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        """How many rows `down` has."""
        return self.down.shape[0]

    def in_rows(self, rows: Sequence[int], out: int) -> Product:
        """The same at some rows of a larger weight: the other rows of `up` are zero."""
        whole = self.up.new_zeros(out, self.rank)
        whole[list(rows)] = self.up
        return Product(self.down, whole)


def side_by_side(products: Sequence[Product]) -> Product:
    """The sum of products as one."""
    downs, ups = [p.down for p in products], [p.up for p in products]
    return Product(torch.cat(downs), torch.cat(ups, dim=1))


def product_of(
    rewrite: Rewrite,
    methods: Mapping[str, Method],
    tensors: Mapping[str, torch.Tensor],
) -> Product | str:
    """The product that a rewrite adds to its linear, or why there is none.

    `tensors` are the added ones of the site, by their names in the plan.
    """
    sizes = environment(rewrite)
    if rewrite.site.kind != "linear" or rewrite.site.experts:
        return "it is not at a linear of one matrix"
    merged = derive_merge(composed(rewrite, methods), sizes, rewrite.site)
    if isinstance(merged, Refusal):
        return merged.reason
    if problem := _problem(merged):
        return problem
    halves = [_halves(t, merged) for t in flatten(merged.weight) if not _is_base(t)]
    if None in halves:
        return "a factor of it reads inputs and outputs at once: its rank is not low"
    nodes = [node for pair in halves if pair for node in pair]
    values = values_of(nodes, tensors, sizes)
    pairs = zip(values[::2], values[1::2], strict=True)
    return side_by_side([Product(down, up) for down, up in pairs])


def _problem(merged: Merged) -> str:
    """Why the weight and the bias are not the old ones and a sum of products."""
    if merged.creates_bias:
        return "it adds a bias"
    if merged.bias is not None and not isinstance(merged.bias, Leaf):
        return "it changes the bias"
    terms = flatten(merged.weight)
    if not any(map(_is_base, terms)):
        return "it changes the frozen weight itself"
    rest = [t for t in terms if not _is_base(t)]
    if any(_reads_base(node) for term in rest for node, _ in term.factors):
        return "what it adds depends on the frozen weight"
    return "" if rest else "it adds nothing to the weight"


def _is_base(term: Term) -> bool:
    """Whether a term is the frozen weight as it is."""
    if term.coef != 1 or len(term.factors) != 1:
        return False
    (node, labels) = term.factors[0]
    return isinstance(node, Leaf) and node.kind == "weight" and labels == term.out


def _reads_base(node: Node) -> bool:
    return any(isinstance(n, Leaf) and n.kind == "weight" for n in ir.walk(node))


def _halves(term: Term, merged: Merged) -> tuple[Node, Node] | None:
    """A term as [rank, in] and [out, rank] with its coefficient; None if it is none."""
    outputs, inputs = _sides(term, merged)
    down = [f for f in term.factors if {*f[1]} & {*inputs}]
    up = [f for f in term.factors if f not in down]
    if not down or any({*labels} & {*outputs} for _, labels in down):
        return None
    inner = _shared(down, up)
    rank = Size.of(prod(a.number or 0 for a in term.axes(inner)))
    first = product_node(down, (*inner, *inputs), (rank, merged.weight.axes[1]))
    second = product_node(up, (*outputs, *inner), (merged.weight.axes[0], rank))
    return first, ir.add((second,), (term.coef,))


def _sides(term: Term, merged: Merged) -> tuple[Labels, Labels]:
    """The labels of the result that are of the output and of the input axis."""
    rows, seen, number = merged.weight.axes[0].number, 1, 0
    while seen != rows:
        seen *= term.size[term.out[number]].number or 0
        number += 1
    return term.out[:number], term.out[number:]


def _shared(down: Sequence[Factor], up: Sequence[Factor]) -> Labels:
    above = {label for _, labels in up for label in labels}
    below = [label for _, labels in down for label in labels]
    return tuple(label for label in dict.fromkeys(below) if label in above)
