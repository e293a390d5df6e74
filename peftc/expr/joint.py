"""Forward and backward of a site, ordered together.

In: the composed expressions of a site, and numbers for its sizes.  Out: a
`JointProgram` of training: the values that are replaced, and the gradients of
activations and trained tensors.

The forward is written with the base's own products as values, so that the backward has
one product with the weight for each of them.  What else may be settled first, so that
more is shared, is tried: the products W x and dy W of what the site reads and gets,
which a search that takes one value after the other would not choose.  And a matrix of
parameters that is built may be charged for its gradient or not: which guess is better
is known once the gradients are planned.  The cheapest whole is kept; plans are kept
too, by normal form, sizes and machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.base import BaseLinear
from peftc.expr.cost import Machine, Measure, has_tokens
from peftc.expr.derivative import adjoints, is_zero, sums_of_slopes
from peftc.expr.dropout import Mask, in_evaluation, in_training
from peftc.expr.ir import Add, Call, Leaf, Map, Node, View
from peftc.expr.lower_joint import lower_joint
from peftc.expr.normal import concrete
from peftc.expr.order import MACHINE, Planner
from peftc.expr.places import REAL
from peftc.expr.roofline import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.expr.compose import Composed
    from peftc.expr.joint_program import JointProgram

WX, DYW = "W x", "dy W"
SEEDS: tuple[tuple[str, ...], ...] = ((), (WX,), (DYW,), (WX, DYW))
"""What is tried beside every product with the weight being a value."""


CLEARLY = 1.02
"""How much more a plan may take than the cheapest, and go before it."""


class StoredSumError(Exception):
    """A plan for training holds a sum of a base weight with something else."""


def order_jointly(
    composed: Composed,
    env: Mapping[str, int],
    biased: bool,
    machine: Machine = MACHINE,
    training: bool = True,
) -> JointProgram:
    """The joint program of all that a site's equations replace.

    Outside of `training` nothing is dropped, and there still are gradients.

    Raises:
        NotWhole: if a size is no positive whole number where names have these values.
        NoDerivativeError: if a function on the way has none.
    """
    names = tuple(composed.outputs)
    linear = BaseLinear.at(env, biased) if composed.kind == "linear" else None
    outputs = tuple(composed.outputs.values())
    return _ordered(names, outputs, env, linear, machine, training)


def order_losses(
    composed: Composed, env: Mapping[str, int], machine: Machine = MACHINE
) -> JointProgram | None:
    """The joint program of the terms of the loss, `loss` and `loss#2`; None if none."""
    count = len(composed.losses)
    names = tuple(f"loss#{i}" if i > 1 else "loss" for i in range(1, count + 1))
    return _ordered(names, composed.losses, env, None, machine, True) if count else None


def _ordered(
    names: tuple[str, ...],
    outputs: Sequence[Node],
    env: Mapping[str, int],
    linear: BaseLinear | None,
    machine: Machine,
    training: bool,
) -> JointProgram:
    exact = concrete(outputs, env)[0]
    values, masks = in_training(exact) if training else (in_evaluation(exact), ())
    planner = Planner(Measure(machine), linear)
    normal = tuple(planner.with_base(list(values)))
    return _cheapest(Site(names, normal, masks, linear, machine))


@dataclass(frozen=True)
class Site:
    """What a plan depends on: equal ones have equal plans."""

    names: tuple[str, ...]
    outputs: tuple[Node, ...]
    masks: tuple[Mask, ...]
    linear: BaseLinear | None
    machine: Machine

    @property
    def seeds(self) -> list[Leaf]:
        """The adjoints of the outputs: `dy` of `y`."""
        pairs = zip(self.names, self.outputs, strict=True)
        return [ir.leaf(f"d{name}", "input", output.axes) for name, output in pairs]

    def gradients(self) -> list[tuple[str, Node]]:
        """The gradient of each activation and of each trained tensor, by name."""
        masks = {mask.leaf for mask in self.masks}
        leaves = [n for n in ir.walk(*self.outputs) if isinstance(n, Leaf)]
        active = [n for n in leaves if has_tokens(n) and n not in masks]
        given = (self.linear.x, self.linear.y) if self.linear else ()
        wanted: dict[str, Node] = {leaf.name: leaf for leaf in given}
        wanted |= {n.name: n for n in active if n is not REAL}
        wanted |= {n.name: n for n in leaves if n.kind == "param"}
        pairs = list(zip(self.outputs, self.seeds, strict=True))
        found = dict(zip(wanted, adjoints(pairs, list(wanted.values())), strict=True))
        if self.linear:
            found["x"] = self._through_base(found)
            del found["y"]
        return [(name, node) for name, node in found.items() if not is_zero(node)]

    def _through_base(self, found: Mapping[str, Node]) -> Node:
        """The gradient of x: its own, and that of the base's output through W."""
        assert self.linear is not None
        back = ir.call("back", (found["y"],), (), self.linear.x.axes)
        return ir.add((found["x"], back))


# --- the cheapest ------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    seeds: str
    seconds: float
    outputs: Sequence[Node]
    gradients: Sequence[Node]


@lru_cache(maxsize=1024)
def _cheapest(site: Site) -> JointProgram:
    """The plan that takes least; the first of those that hardly differ."""
    named = site.gradients()
    nodes = [node for _, node in named]
    plans = list(_plans(site, nodes))
    limit = CLEARLY * min(plan.seconds for plan in plans)
    best = next(plan for plan in plans if plan.seconds <= limit)
    _check_stored_sums((*best.outputs, *best.gradients))
    return lower_joint(
        dict(zip(site.names, best.outputs, strict=True)),
        dict(zip((name for name, _ in named), best.gradients, strict=True)),
        site.masks,
        (best.seeds, best.seconds),
        site.machine,
    )


def _plans(site: Site, gradients: Sequence[Node]) -> Iterator[_Plan]:
    """Plans that differ in what is settled first and in what a matrix is charged."""
    for charged in (True, False):
        yield _plan(site, gradients, None, charged)
    backs = [n for n in ir.walk(*gradients) if isinstance(n, Call) and n.fn == "back"]
    if site.linear is None or len(backs) < 2:
        return  # nothing could have fewer products with the weight
    opened = _opened(gradients, site.linear)
    for seeds, charged in product(SEEDS, (True, False)):
        yield _plan(site, opened, seeds, charged)


def _plan(
    site: Site,
    gradients: Sequence[Node],
    seeds: tuple[str, ...] | None,
    charged: bool,
) -> _Plan:
    """One plan; without `seeds` every product with the weight is a value."""
    measure = Measure(site.machine, charged=charged)
    planner = Planner(measure, site.linear, sums_of_slopes(site.outputs))
    if seeds:
        _settle(planner, site, seeds)
    every = planner.plan([*site.outputs, *gradients])
    if site.linear:
        every = _opened(every, site.linear)
    weight = measure.elements(site.linear.weight.axes) if site.linear else 0
    count = len(site.outputs)
    settled = "all" if seeds is None else ", ".join(seeds) or "none"
    text = settled + " uncharged" * (not charged)
    return _Plan(text, seconds(every, measure, weight), every[:count], every[count:])


def _opened(roots: Sequence[Node], linear: BaseLinear) -> list[Node]:
    """`back(g)` as the product of g with the weight."""
    new: dict[Node, Node] = {}
    for node in ir.walk(*roots):
        operands = [new[operand] for operand in node.operands]
        if isinstance(node, Call) and node.fn == "back":
            labels = (("b", "t", "o"), ("o", "i"))
            new[node] = ir.ein((operands[0], linear.weight), labels, ("b", "t", "i"))
        else:
            new[node] = ir.rebuild(node, operands)
    return [new[root] for root in roots]


def _settle(planner: Planner, site: Site, seeds: tuple[str, ...]) -> None:
    """Take products with the weight as computed: W x from y, dy W from dy."""
    linear = site.linear
    assert linear is not None
    weight = (linear.weight, (2, 3))
    if WX in seeds:
        (made,) = linear.reuse([ir.call("product", (linear.x,), (), linear.y.axes)])
        planner.available.remember([(linear.x, (0, 1, 3)), weight], made, (0, 1, 2))
    if DYW in seeds:
        (dy,) = site.seeds
        (back,) = _opened([ir.call("back", (dy,), (), linear.x.axes)], linear)
        planner.settle(back)
        planner.available.remember([(dy, (0, 1, 2)), weight], back, (0, 1, 3))


# --- what is never stored -----------------------------------------------------------


def _check_stored_sums(roots: Sequence[Node]) -> None:
    """A base weight is added to nothing: the sum would be rounded like the weight.

    What a function is applied to has no other form.
    """
    nodes = ir.walk(*roots)
    inside = {o for n in nodes if isinstance(n, (Map, Call)) for o in n.operands}
    for node in nodes:
        is_sum = isinstance(node, Add) and len(node.operands) > 1
        stored = is_sum and not has_tokens(node) and node not in inside
        if stored and any(map(_is_weight, node.operands)):
            raise StoredSumError(ir.pretty(node))


def _is_weight(node: Node) -> bool:
    """Whether a node is a base matrix, whole, under other axes or scaled."""
    while isinstance(node, View):
        (node,) = node.operands
    if isinstance(node, ir.Ein):
        kept = set(node.out)
        pairs = zip(node.operands, node.labels, strict=True)
        return any(set(row) <= kept and _is_weight(operand) for operand, row in pairs)
    return isinstance(node, Leaf) and node.kind == "weight" and len(node.axes) > 1
