"""The order in which a composed equation is evaluated, chosen by cost.

In: the composed expressions of a site, and numbers for its sizes.  Out: a straight-line
`Program` for one of the values that are replaced.

An expression is cut into regions: sums of products between Maps, Calls and sums over
tokens.  Each region is put into normal form, base products are taken from the linear's
own output, and every term is ordered by `peftc.expr.contract`.  A sum that is a factor
is used in the cheapest of three ways: distributed over the product (`spread`), applied
to the other factors, or built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.available import Available
from peftc.expr.base import BaseLinear
from peftc.expr.contract import Search
from peftc.expr.cost import Machine, Measure, has_tokens
from peftc.expr.ir import Add, Axes, Call, Ein, Eye, Leaf, Literal, Map, Node, View
from peftc.expr.lower import lower_program
from peftc.expr.normal import Term, concrete, flatten, product_node
from peftc.expr.places import TOKEN_AXES
from peftc.expr.splits import Mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from peftc.expr.compose import Composed
    from peftc.expr.program import Program

SMALL = 1 << 14
"""Elements up to which a sum in parameter space is not worth distributing."""

DEEP = 100
"""Operations inside one another, above which sums are simply built."""

SPREAD_TERMS, SPREAD_FACTORS = 16, 7
"""Distribution is not tried if it makes more than these."""

MACHINE = Machine()


def order(
    composed: Composed,
    target: str,
    env: Mapping[str, int],
    biased: bool,
    machine: Machine = MACHINE,
) -> Program:
    """The program that computes `target`, ordered for training.

    Raises:
        NotWhole: if a size is no positive whole number where names have these values.
    """
    (root,), _ = concrete((composed.outputs[target],), env)
    linear = BaseLinear.at(env, biased) if composed.kind == "linear" else None
    planner = Planner(Measure(machine), linear)
    (ordered,) = planner.plan([root])
    return lower_program(ordered, target, machine.element)


class Planner:
    """Orders concrete expressions; what one computes, later ones find.

    Sums in `whole` are made wherever they are used: their summands may cancel, and a
    product with each of them would show the rounding of both.
    """

    def __init__(
        self,
        measure: Measure,
        linear: BaseLinear | None = None,
        whole: Collection[Node] = (),
    ) -> None:
        self.measure = measure
        self.linear = linear
        self.whole = whole
        self.available = Available()
        self._done: dict[Node, Node] = {}
        self._settled: set[Node] = set()
        self._terms: dict[tuple[Node, bool], list[Term]] = {}
        self._quotes: dict[Node, float] = {}

    def plan(self, roots: list[Node]) -> list[Node]:
        """The roots, ordered; shared parts are computed once."""
        nodes = ir.walk(*roots)
        deep = _depth(nodes) > DEEP
        for node in nodes:  # inner ones first, to keep recursion shallow
            if isinstance(node, (Map, Call)) or self._is_whole_sum(node, deep):
                self.lower(node)
        ordered = [self.lower(root) for root in roots]
        return self.linear.reuse(ordered) if self.linear else ordered

    def _is_whole_sum(self, node: Node, deep: bool) -> bool:
        """Whether a node is a sum that is made wherever it is used.

        Sums of activations are; those in parameter space only where they are nested so
        deep that asking how to use each in the others' products would take too long.
        """
        if node in self.whole:
            return True
        if not isinstance(node, Add) or not (deep or has_tokens(node)):
            return False
        together, apart = self._cut(node, spread=False), self._cut(node, spread=True)
        return together and (apart or deep)

    # --- what stays whole ---------------------------------------------------------

    def _cut(self, node: Node, spread: bool) -> bool:
        if node in self._settled or node in self.whole:
            return True
        if isinstance(node, Add):
            if len(node.operands) == 1:
                return False
            if has_tokens(node):
                return len(self.terms(node, spread)) > 1
            if self.measure.training and self.measure.weight(node):
                return False
            return not spread or self.measure.elements(node.axes) <= SMALL
        if isinstance(node, Ein):
            summed = {n for row in node.labels for n in row} - set(node.out)
            features = sum(axis not in TOKEN_AXES for axis in node.axes)
            return bool(summed) and features <= (0 if has_tokens(node) else 1)
        return False

    def terms(self, node: Node, spread: bool) -> list[Term]:
        """The terms of a region, base products taken out."""
        known = self._terms.get((node, spread))
        if known is None:
            known = self._flat(node, spread)
            if self.linear and has_tokens(node):
                known = self.linear.use(known)
            self._terms[node, spread] = known
        return known

    def _flat(self, node: Node, spread: bool) -> list[Term]:
        """Flattened; where views do not nest, more and more stays whole."""

        def active(part: Node) -> bool:
            return isinstance(part, (Ein, View)) and has_tokens(part)

        cuts: tuple[Callable[[Node], bool], ...] = (
            lambda part: self._cut(part, spread),
            lambda part: self._cut(part, spread) or active(part),
            lambda part: isinstance(part, (Add, View)),
        )
        for cut in cuts[:-1]:
            try:
                return flatten(node, cut)
            except Mismatch:
                continue
        return flatten(node, cuts[-1])

    def with_base(self, roots: Sequence[Node]) -> list[Node]:
        """The roots with base products as values, and else in no order."""
        new: dict[Node, Node] = {}
        for root in roots:
            self._with_base(root, new)
        return [new[root] for root in roots]

    def _with_base(self, root: Node, new: dict[Node, Node]) -> None:
        """Enter what stands for `root`, and what it is made of before it."""
        stack = [root]
        while stack:
            node = stack[-1]
            region = isinstance(node, (Add, Ein)) and has_tokens(node)
            terms = self.terms(node, spread=False) if region else []
            parts = [n for t in terms for n, _ in t.factors] or node.operands
            missing = [part for part in parts if part not in new and part is not node]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            new[node] = (
                _sum_of(terms, node.axes, new)
                if region
                else ir.rebuild(node, [new[operand] for operand in node.operands])
            )

    # --- choosing -----------------------------------------------------------------

    def _choose(self, node: Node) -> tuple[float, list[Term]]:
        """The cheaper of both ways to treat sums in products, with its seconds."""
        together = self.terms(node, spread=False)
        cost = self._cost(together)
        if not self.measure.training or not any(map(_holds_sum, together)):
            return cost, together
        apart = self.terms(node, spread=True)
        most = max((len(term.factors) for term in apart), default=0)
        if len(apart) > SPREAD_TERMS or most > SPREAD_FACTORS:
            return cost, together
        other = self._cost(apart)
        return (other, apart) if other < 0.99 * cost else (cost, together)

    def _cost(self, terms: list[Term]) -> float:
        return sum(Search(term, self).cost for term in terms)

    def quote(self, node: Node) -> float:
        """Seconds to compute a node; Maps and opaque Calls inside are not counted."""
        if node in self._done or isinstance(node, (Leaf, Literal, Eye, Map)):
            return 0.0
        if isinstance(node, View):
            return self.quote(node.operands[0])
        if isinstance(node, Call):
            return self._quote_call(node)
        if node not in self._quotes:
            self._quotes[node] = 0.0  # regions inside may ask for the same node
            self._quotes[node] = self._choose(node)[0]
        return self._quotes[node]

    def _quote_call(self, node: Call) -> float:
        if self.linear is None or node.fn not in ("back", "base", "product"):
            return 0.0
        m = self.measure.machine
        rows = m.batch * m.tokens
        weight = self.measure.elements(self.linear.weight.axes)
        product = 2 * rows * weight / m.matrix + m.launch
        return product + self.quote(node.operands[0])

    # --- lowering -----------------------------------------------------------------

    def lower(self, node: Node) -> Node:
        """The node with everything in it ordered."""
        known = self._done.get(node)
        if known is None:
            known = self._done[node] = self._lower(node)
        return known

    def _lower(self, node: Node) -> Node:
        if isinstance(node, (Leaf, Literal, Eye)):
            return node
        if isinstance(node, (Map, Call)):
            return ir.rebuild(node, [self.lower(operand) for operand in node.operands])
        if isinstance(node, View):
            return ir.view(self.lower(node.operands[0]), node.axes)
        terms = sorted(self._choose(node)[1], key=lambda term: len(term.factors))
        if not terms:
            return ir.literal(0, node.axes)
        # Each is searched again: it may use what those before it, with fewer factors,
        # computed.
        parts = [ir.view(Search(term, self).build(), node.axes) for term in terms]
        return ir.add(parts, [term.coef for term in terms])

    def settle(self, node: Node) -> None:
        """Take a node as computed: an atom from now on."""
        self._done[node] = node
        self._settled.add(node)

    def is_settled(self, node: Node) -> bool:
        """Whether a node is computed."""
        return node in self._done


def _sum_of(terms: Sequence[Term], axes: Axes, new: Mapping[Node, Node]) -> Node:
    """The sum of terms, with what stands for their factors."""
    parts = [
        product_node([(new[n], row) for n, row in t.factors], t.out, axes)
        for t in terms
    ]
    if not parts:
        return ir.literal(0, axes)
    return ir.add(parts, [term.coef for term in terms])


def _depth(nodes: Sequence[Node]) -> int:
    depth: dict[Node, int] = {}
    for node in nodes:
        depth[node] = 1 + max((depth[o] for o in node.operands), default=0)
    return max(depth.values())


def _holds_sum(term: Term) -> bool:
    inner = (n.operands[0] if isinstance(n, View) else n for n, _ in term.factors)
    return any(isinstance(node, Add) and not has_tokens(node) for node in inner)
