"""The order of one product: dynamic programming over pairwise contractions.

In: a term of the normal form.  Out: the seconds of its cheapest contraction tree, and
the tree as IR.  The search is exact for as many factors as occur (up to MOST; above
that the cheapest pairs are contracted first).  A factor that is a sum may also be
*applied* to the product of others, summand by summand, without being built.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple, Protocol

from peftc.expr import ir
from peftc.expr.cost import has_tokens
from peftc.expr.ir import Add, Call, Labels, Leaf, Node, View
from peftc.expr.places import TOKEN_AXES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from peftc.expr.available import Available
    from peftc.expr.cost import Measure
    from peftc.expr.normal import Factor, Term
    from peftc.expr.sizes import Size

MOST = 9
"""Factors of a product that are searched exhaustively."""

FORBIDDEN = 1.0
"""Seconds charged for what must not be done if there is any other way."""


class Regions(Protocol):
    """What the search asks of the planner."""

    measure: Measure
    available: Available

    def quote(self, node: Node) -> float:
        """Seconds to compute a node that is not computed yet."""

    def lower(self, node: Node) -> Node:
        """The node in the order that was chosen for it."""

    def settle(self, node: Node) -> None:
        """Take a node as computed."""

    def is_settled(self, node: Node) -> bool:
        """Whether a node is computed."""


class Choice(NamedTuple):
    """How a set of factors is contracted: two subsets, or a sum applied to a subset."""

    cost: float
    left: int = 0
    right: int = 0
    apply: bool = False


@dataclass
class Network:
    """Factors and labels as bit masks; a set of factors is a mask too."""

    factors: Sequence[Factor]
    out: Labels
    size: Sequence[Size]
    measure: Measure
    labels: list[int] = field(default_factory=list)
    masks: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    tokens: int = 0
    _volume: dict[int, int] = field(default_factory=lambda: {0: 1})

    def __post_init__(self) -> None:
        bit: dict[int, int] = {}
        holders: list[int] = []
        for i, (_, row) in enumerate(self.factors):
            for label in row:
                if bit.setdefault(label, len(bit)) == len(holders):
                    holders.append(0)
                holders[bit[label]] |= 1 << i
            self.masks.append(sum(1 << b for b in {bit[label] for label in row}))
        self.labels = list(bit)
        self.numbers = [self.measure.number(self.size[label]) for label in bit]
        self.tokens = self._mask(lambda label: self.size[label] in TOKEN_AXES)
        self.outer = self._mask(lambda label: label in self.out)
        self.active = 0  # held by an activation
        for mask in self.masks:
            self.active |= mask if mask & self.tokens else 0
        self.kept = [self._kept(s, holders) for s in range(1 << len(self.factors))]

    def _mask(self, holds: Callable[[int], bool]) -> int:
        return sum(1 << b for b, label in enumerate(self.labels) if holds(label))

    def _kept(self, subset: int, holders: list[int]) -> int:
        """The labels of the result of contracting a subset."""
        mask = 0
        for b, factors in enumerate(holders):
            if factors & subset and (factors & ~subset or self.outer >> b & 1):
                mask |= 1 << b
        return mask

    def volume(self, mask: int) -> int:
        """The elements of a tensor with these labels."""
        known = self._volume.get(mask)
        if known is None:
            low = mask & -mask
            known = self.volume(mask ^ low) * self.numbers[low.bit_length() - 1]
            self._volume[mask] = known
        return known

    def names(self, subset: int) -> Labels:
        """The labels of a subset's result."""
        kept = self.kept[subset]
        return tuple(label for b, label in enumerate(self.labels) if kept >> b & 1)

    def members(self, subset: int) -> list[Factor]:
        """The factors of a subset."""
        return [f for i, f in enumerate(self.factors) if subset >> i & 1]

    def arranged(self, subset: int) -> Labels:
        """The labels of a subset's result in the order it is stored.

        Token axes lead, then come those of the whole product; what a matrix will be
        summed over with an activation comes last, as in M[n, k].
        """
        kept = self.kept[subset]
        late = 0 if kept & self.tokens else self.active
        bits = (b for b in range(len(self.labels)) if kept >> b & 1)
        return tuple(self.labels[b] for b in sorted(bits, key=self._place(late)))

    def _place(self, late: int) -> Callable[[int], tuple[bool, int, bool, int]]:
        last = len(self.out)
        place = {label: i for i, label in enumerate(self.out)}
        return lambda b: (
            not self.tokens >> b & 1,
            place.get(self.labels[b], last),
            bool(late >> b & 1),
            self.labels[b],
        )


def index(single: int) -> int:
    """The factor of a set of one."""
    return single.bit_length() - 1


def splits(subset: int) -> Iterator[tuple[int, int]]:
    """Every way to cut a set in two, both ways round."""
    left = (subset - 1) & subset
    while left:
        yield left, subset ^ left
        left = (left - 1) & subset


class Search:
    """The cheapest tree for one term, and how to build it."""

    def __init__(self, term: Term, regions: Regions) -> None:
        self.term = term
        self.regions = regions
        self.measure = regions.measure
        factors = _few(_without_scalars(term.factors), term, self.measure)
        self.net = Network(factors, term.out, term.size, self.measure)
        self.full = (1 << len(factors)) - 1
        self.frozen = self._where(self.measure.frozen)
        charged = self.measure.training
        self.weights = [
            self.measure.weight(node) if charged else 0 for node, _ in factors
        ]
        self.choices = [Choice(0.0)] * (self.full + 1)
        self._charged: set[Node] = set()
        for subset in range(1, self.full + 1):
            self.choices[subset] = self._choose(subset)

    @property
    def cost(self) -> float:
        """Seconds of the whole term."""
        return self.choices[self.full].cost

    def _where(self, holds: Callable[[Node], bool]) -> int:
        nodes = (node for node, _ in self.net.factors)
        return sum(1 << i for i, node in enumerate(nodes) if holds(node))

    # --- costs --------------------------------------------------------------------

    def _choose(self, subset: int) -> Choice:
        if not subset & (subset - 1):
            return Choice(self._single(index(subset)))
        if self._found(subset):
            return Choice(0.0)
        penalty = self._penalty(subset)
        best = Choice(float("inf"))
        for left, right in splits(subset):
            if left > right:
                best = min(best, self._pair(left, right, penalty))
            if not left & (left - 1) and self._applies(left, right):
                best = min(best, self._applied_cost(left, right, max(penalty, 0)))
        return best

    def _found(self, subset: int) -> Factor | None:
        members, names = self.net.members(subset), self.net.names(subset)
        return self.regions.available.find(members, names)

    def _single(self, i: int) -> float:
        """A factor by itself: what it costs to have, and to sum what only it holds."""
        node, _ = self.net.factors[i]
        inner = node.operands[0] if isinstance(node, View) else node
        cost = 0.0
        if inner not in self._charged and not self.regions.is_settled(inner):
            cost += self._built(inner)
            self._charged.add(inner)
        if self.net.kept[1 << i] != self.net.masks[i] and not self.measure.frozen(node):
            cost += self.measure.traffic(self.net.volume(self.net.masks[i]))
        return cost

    def _built(self, node: Node) -> float:
        if isinstance(node, Call):
            return self.regions.quote(node)
        if not isinstance(node, Add):
            return 0.0
        elements = self.measure.elements(node.axes)
        cost = self.regions.quote(node) + self.measure.traffic(elements)
        if has_tokens(node):
            return cost
        if self.net.tokens and not self.measure.frozen(node):
            cost += self.measure.gradient(elements)
        copied = self.measure.training and self.measure.weight(node) > 0
        return cost + FORBIDDEN * (copied and bool(self.net.tokens))

    def _pair(self, left: int, right: int, penalty: float) -> Choice:
        net, m = self.net, self.measure.machine
        a, b, out = net.kept[left], net.kept[right], net.kept[left | right]
        before = self.choices[left].cost + self.choices[right].cost
        if penalty < 0:
            return Choice(before, left, right)
        flops = net.volume(a | b) * (2 if a | b != out else 1)
        stored = 0 if left | right == self.full else net.volume(out)
        moved = m.element * (net.volume(a) + net.volume(b) + stored)
        matrix = a & b & ~out and a & ~b and b & ~a
        peak = m.matrix if matrix else m.vector
        seconds = max(flops / peak, moved / m.bandwidth) + m.launch
        if penalty >= FORBIDDEN and self._elementwise_delta(left, right):
            penalty -= FORBIDDEN
        return Choice(before + seconds + penalty, left, right)

    def _penalty(self, subset: int) -> float:
        """Charged for the result of a subset, whatever its tree; below 0 it is free.

        Free are frozen results no larger than a factor: they can be kept.
        """
        net = self.net
        result = net.volume(net.kept[subset])
        largest = max(net.volume(net.masks[i]) for i in _bits(subset))
        if not subset & ~self.frozen and result <= largest:
            free = not self._copies_weight(subset, result)
            return -1.0 if free else FORBIDDEN
        cost = 0.0
        inner = subset != self.full and not net.kept[subset] & net.tokens
        if inner and net.tokens and result > self._largest_trained(subset):
            cost += self.measure.gradient(result)
        return cost + FORBIDDEN * self._copies_weight(subset, result)

    def _largest_trained(self, subset: int) -> float:
        """Elements of the largest factor that has a gradient anyway; of none, all."""
        trained = list(_bits(subset & ~self.frozen))
        volumes = (self.net.volume(self.net.masks[i]) for i in trained)
        return max(volumes, default=float("inf"))

    def _copies_weight(self, subset: int, result: int) -> bool:
        """Whether a parameter-space result is a copy of a base weight, more or less."""
        if subset == self.full or self.net.kept[subset] & self.net.tokens:
            return False
        return any(2 * result >= self.weights[i] > 0 for i in _bits(subset))

    def _elementwise_delta(self, left: int, right: int) -> bool:
        """A weight times something of its size that is built anyway: a delta."""
        for one, other in ((left, right), (right, left)):
            weight = 0 if one & (one - 1) else self.weights[index(one)]
            mask = self.net.kept[other]
            if weight and self.net.volume(mask & ~self.net.tokens) >= weight:
                return not mask & self.net.tokens
        return False

    # --- sums ---------------------------------------------------------------------

    def _applies(self, left: int, right: int) -> bool:
        """Whether factor `left` is a sum that `right` may be put through."""
        node, _ = self.net.factors[index(left)]
        if not isinstance(node, Add) or self.regions.is_settled(node):
            return False
        a, b = self.net.kept[left], self.net.kept[right]
        if has_tokens(node) or not a & b:
            return False
        small = self.net.volume(b) <= 4 * self.measure.elements(node.axes)
        return bool(b & self.net.tokens) or small

    def _applied_cost(self, left: int, right: int, penalty: float) -> Choice:
        node, labels = self.net.factors[index(left)]
        value = self._placeholder(right)
        names = self.net.names(left | right)
        cost = self.choices[right].cost + penalty
        for summand in node.operands:
            cost += self.regions.quote(_applied(summand, labels, value, names))
        return Choice(cost, left, right, apply=True)

    def _placeholder(self, subset: int) -> Factor:
        """A stand-in for the result of a subset, to ask for quotes with."""
        i = index(subset)
        if subset == 1 << i and self.net.kept[subset] == self.net.masks[i]:
            return self.net.factors[i]
        names = self.net.arranged(subset)
        return ir.leaf("?", "input", (self.term.size[n] for n in names)), names

    # --- building -----------------------------------------------------------------

    def build(self) -> Node:
        """The term without its coefficient; its axes are those of `term.out`."""
        if not self.full:
            return ir.literal(1)
        return self._result(self._build(self.full))

    def _result(self, factor: Factor) -> Node:
        node, labels = factor
        return (
            node if labels == self.term.out else ir.ein([node], [labels], self.term.out)
        )

    def _build(self, subset: int) -> Factor:
        if not subset & (subset - 1):
            return self._build_single(subset)
        found = self._found(subset)
        if found:
            return found
        choice = self.choices[subset]
        whole = subset == self.full
        names = self.term.out if whole else self.net.arranged(subset)
        right = self._build(choice.right)
        if choice.apply:
            node = self._build_applied(choice, right, names)
        else:
            left = self._build(choice.left)
            node = ir.ein([left[0], right[0]], [left[1], right[1]], names)
        self.regions.available.remember(self.net.members(subset), node, names)
        return node, names

    def _build_single(self, subset: int) -> Factor:
        node, labels = self.net.factors[index(subset)]
        node = self.regions.lower(node)
        names = self.net.arranged(subset)
        if set(names) == set(labels) and len(names) == len(labels):
            return node, labels
        return ir.ein([node], [labels], names), names

    def _build_applied(self, choice: Choice, value: Factor, names: Labels) -> Node:
        node, labels = self.net.factors[index(choice.left)]
        assert isinstance(node, Add)
        if not isinstance(value[0], Leaf):
            self.regions.settle(value[0])
        parts = [_applied(s, labels, value, names) for s in node.operands]
        return ir.add([self.regions.lower(part) for part in parts], node.coefs)


def _without_scalars(factors: Sequence[Factor]) -> list[Factor]:
    """The factors with scalars multiplied first, if there is anything else."""
    scalars = [node for node, labels in factors if not labels]
    others = [factor for factor in factors if factor[1]]
    if len(scalars) < 2 or not others:
        return list(factors)
    return [*others, (ir.ein(scalars, [()] * len(scalars), ()), ())]


def _few(factors: list[Factor], term: Term, measure: Measure) -> list[Factor]:
    """At most MOST factors: of the first ones, the pair with the smallest product is
    made one until they are."""
    held = Counter(n for _, row in factors for n in set(row))
    held.update(set(term.out))
    while len(factors) > MOST:
        pairs = combinations(range(MOST), 2)
        results = ((_kept_of(factors[i], factors[j], held), i, j) for i, j in pairs)
        names, i, j = min(
            results, key=lambda r: (measure.elements(term.axes(r[0])), *r[1:])
        )
        a, b = factors[i], factors[j]
        held.subtract((*set(a[1]), *set(b[1])))
        held.update(set(names))
        factors[i] = (ir.ein([a[0], b[0]], [a[1], b[1]], names), names)
        del factors[j]
    return factors


def _kept_of(a: Factor, b: Factor, held: Counter[int]) -> Labels:
    """The labels of the product of two factors; `held` counts who carries a label."""
    inside = dict.fromkeys((*a[1], *b[1]))
    return tuple(n for n in inside if held[n] > (n in a[1]) + (n in b[1]))


def _bits(subset: int) -> Iterator[int]:
    while subset:
        low = subset & -subset
        yield low.bit_length() - 1
        subset ^= low


def _applied(summand: Node, labels: Labels, value: Factor, names: Labels) -> Node:
    carried = {*labels, *value[1]}
    out = [name for name in names if name in carried]
    return ir.ein([summand, value[0]], [labels, value[1]], out)
