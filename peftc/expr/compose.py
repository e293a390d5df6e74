"""Several methods at one site as one expression for each value that is replaced.

In: equations in the order they were written.  Out: `Composed`.  At a linear the order
does not come from the text but from what the equations are:

  3  additive deltas: W' - W without W; y' - y with x, but without y, W and bias
  4  the input side: x' rules, and W' = W R
  5  any other W' or bias' rule
  6  y' rules that depend on y
  7  learned biases: bias' - bias without bias; y' - y with neither y nor x

Within a class the written order holds.  (1 and 2, storage and pruning, are no
equations.)  A delta reads the x that the linear multiplies, after class 4, so that
W' = W + B A and y' = y + B(A(x)) compose alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.ir import Add, Call, Labels, Node, View
from peftc.expr.normal import Term, flatten
from peftc.expr.places import HIDDEN, LINEAR, PLACES, linear_product, over_tokens
from peftc.expr.rows import places_of, steps
from peftc.expr.sizes import product
from peftc.expr.splits import Mismatch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from peftc.expr.equation import Declaration, Equation
    from peftc.expr.networks import Network
    from peftc.syntax.source import Span
    from peftc.view import Kind

W, BIAS, X, Y = (LINEAR[name] for name in ("W", "bias", "x", "y"))

DELTA, INPUT, WEIGHT, OUTPUT, SHIFT = 3, 4, 5, 6, 7


@dataclass(frozen=True)
class Composed:
    """All that happens at one site.

    `outputs` gives `y` of a linear, `h` of an edge, `g` and `c` of a norm, over the
    leaves of the place; of these, W, bias, x, h, ... are the base's.  A linear without
    bias has no leaf `bias`, and the leaf `y` does not occur: it is W x + bias.

    Where a later rule of an edge reads `n`, the norm of what the earlier ones give, `h`
    is what these give and `h#2`, ..., has that as its `h` and the norm of it as `n`.

    Of an attention it gives the rows of each equation in order, `k` and `v`, `k#2` and
    `v#2`, ..., as [b, t, rows, key]; `start` is by how much the first position moves.
    Of an input it gives `rows`, `rows#2`, ..., as [rows, hidden], and their places.
    """

    kind: str
    outputs: Mapping[str, Node]
    declarations: tuple[Declaration, ...]
    losses: tuple[Node, ...]
    origins: Mapping[Node, Span]
    start: int = 0
    places: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()


def compose(
    kind: Kind, equations: Sequence[Equation], biased: bool, post_norm: bool = False
) -> Composed:
    """Chain the rules of all equations; `biased` says whether bias (or c) exists, and
    `post_norm` whether `n` is another value than `h`."""
    origins: dict[Node, Any] = {}
    for equation in equations:
        for node, span in equation.origins.items():
            origins.setdefault(node, span)
    absent = {} if biased else _absent(kind)
    rules = [
        {t: _own(r, absent, number, origins) for t, r in equation.rules.items()}
        for number, equation in enumerate(equations)
    ]
    if kind == "linear":
        outputs: Mapping[str, Node] = {"y": _Linear(rules, origins, absent).output()}
    elif kind == "attention":
        outputs = _apart(rules, ("k", "v"))
    elif kind == "input":
        outputs = _apart(rules, ("rows",))
    elif kind == "hidden":
        outputs = _stages(rules, origins, post_norm)
    else:
        outputs = _chain(kind, rules, origins, absent)
    return Composed(
        kind,
        outputs,
        tuple(d for equation in equations for d in equation.declarations),
        tuple(
            ir.replace([loss], absent, origins)[0]
            for equation in equations
            for loss in equation.losses
        ),
        origins,
        sum(steps(rule["start"]) for rule in rules if "start" in rule),
        tuple(places_of(rule) for rule in rules) if kind == "input" else (),
        tuple(e.network for e in equations if e.network is not None),
    )


def _own(
    rule: Node, absent: Mapping[Node, Node], number: int, origins: dict[Node, Any]
) -> Node:
    """A rule for a site without what is absent, and with dropout of its own.

    Two methods that drop the same value with the same probability are one node else,
    and would drop the same elements.
    """
    mapping = dict(absent)
    for node in ir.walk(rule) if number else ():
        if isinstance(node, Call) and node.fn == "drop":
            mapping[node] = ir.call(
                node.fn, node.operands, (*node.attrs, number), node.axes
            )
    return ir.replace([rule], mapping, origins)[0]


def _absent(kind: Kind) -> dict[Node, Node]:
    """Zero for the offset that a site does not have."""
    leaves = PLACES[kind]
    offsets = [leaves[name] for name in ("bias", "c") if name in leaves]
    return {leaf: ir.literal(0, leaf.axes) for leaf in offsets}


def _chain(
    kind: Kind,
    rules: Sequence[Mapping[str, Node]],
    origins: dict[Node, Any],
    absent: Mapping[Node, Node],
) -> dict[str, Node]:
    """Each rule's names mean the values after the rules before it."""
    leaves = PLACES[kind]
    state: dict[str, Node] = {name: absent.get(v, v) for name, v in leaves.items()}
    changed: dict[str, Node] = {}
    for one in rules:
        values: dict[Node, Node] = {leaves[n]: value for n, value in state.items()}
        new = {t: ir.replace([r], values, origins)[0] for t, r in one.items()}
        state |= new
        changed |= new
    return changed


def _stages(
    rules: Sequence[Mapping[str, Node]], origins: dict[Node, Any], post_norm: bool
) -> dict[str, Node]:
    """h of an edge; a rule that reads the norm of an h that was changed begins anew."""
    stages: list[list[Mapping[str, Node]]] = [[]]
    for rule in rules:
        if post_norm and stages[-1] and ir.depends_on(rule["h"], {HIDDEN["n"]}):
            stages.append([])
        stages[-1].append(rule)
    return {
        "h" if number == 1 else f"h#{number}": _edge(stage, origins)
        for number, stage in enumerate(stages, 1)
    }


def _edge(rules: Sequence[Mapping[str, Node]], origins: dict[Node, Any]) -> Node:
    """h after rules of which only the first, without a norm in between, reads n."""
    h: Node = HIDDEN["h"]
    for number, rule in enumerate(rules):
        values: dict[Node, Node] = {
            HIDDEN[name]: h for name in ("hn" if number else "h")
        }
        (h,) = ir.replace([rule["h"]], values, origins)
    return h


def _apart(
    rules: Sequence[Mapping[str, Node]], names: tuple[str, ...]
) -> dict[str, Node]:
    """The rows of each rule under a name of their own."""
    having = [rule for rule in rules if names[0] in rule]
    return {
        name if number == 1 else f"{name}#{number}": rule[name]
        for number, rule in enumerate(having, 1)
        for name in names
    }


# --- classes of rules -------------------------------------------------------------


def class_of(target: str, rule: Node) -> int:
    """The class of a rule at a linear, by its algebra."""
    if target == "x":
        return INPUT
    if target == "y":
        return _class_of_output(rule)
    leaf = LINEAR[target]
    additive = not _mentions(_difference(rule, leaf), {leaf})
    if target == "bias":
        return SHIFT if additive else WEIGHT
    if additive:
        return DELTA
    return INPUT if right_factor(rule) is not None else WEIGHT


def _class_of_output(rule: Node) -> int:
    (rule,) = ir.replace([rule], {Y: BASE})
    difference = _difference(rule, BASE)
    if _mentions(difference, {W, BIAS}):
        return OUTPUT
    return DELTA if _mentions(difference, {X}) else SHIFT


BASE = linear_product(W, X, BIAS)


def _difference(rule: Node, value: Node) -> Node:
    return ir.add((rule, value), (1.0, -1.0))


def _mentions(node: Node, leaves: set[Node]) -> bool:
    """Whether a node depends on any of `leaves` once like terms have cancelled."""
    if not ir.depends_on(node, leaves):
        return False
    return any(
        ir.depends_on(factor, leaves)
        for term in _terms(node, leaves)
        for factor, _ in term.factors
    )


def _terms(node: Node, leaves: set[Node]) -> list[Term]:
    """Flattened; sums without `leaves` stay whole, and views if they do not nest."""

    def cut(part: Node) -> bool:
        return isinstance(part, Add) and not ir.depends_on(part, leaves)

    try:
        return flatten(node, cut)
    except Mismatch:
        return flatten(node, lambda part: isinstance(part, View) or cut(part))


def right_factor(rule: Node) -> list[Term] | None:
    """The terms of W' = W R, or None if W' is something else.

    Every term holds W once, with its output axis untouched, and nothing else does.
    """
    try:
        terms = _terms(rule, {W})
    except Mismatch:
        return None
    return terms if all(map(_is_right, terms)) else None


def _is_right(term: Term) -> bool:
    hits = [f for f in term.factors if ir.depends_on(f[0], {W})]
    if len(hits) != 1 or not _is_weight(hits[0][0]):
        return False
    rows, _ = _sides(hits[0][0], hits[0][1])
    others = {n for f in term.factors if f is not hits[0] for n in f[1]}
    return rows == term.out[: len(rows)] and not others & set(rows)


def _is_weight(node: Node) -> bool:
    return node is W or (isinstance(node, View) and node.operands[0] is W)


def _sides(node: Node, labels: Labels) -> tuple[Labels, Labels]:
    """The labels of W's output axis and of its input axis."""
    for count in range(1, len(labels) + 1):
        if product(node.axes[:count]) == W.axes[0]:
            return labels[:count], labels[count:]
    return labels, ()


def apply_right(terms: Sequence[Term], x: Node) -> Node:
    """R x, for the terms of W R."""
    parts = [_apply_term(term, x) for term in terms]
    if not parts:
        return ir.literal(0, x.axes)
    return ir.add(parts, [term.coef for term in terms])


def _apply_term(term: Term, x: Node) -> Node:
    (hit,) = (f for f in term.factors if _is_weight(f[0]))
    rows, columns = _sides(*hit)
    given = term.out[len(rows) :]
    rest = [f for f in term.factors if f is not hit]
    value = ir.view(x, (*X.axes[:2], *term.axes(given)))
    node = ir.ein(
        [value, *(node for node, _ in rest)],
        [("b", "t", *given), *(labels for _, labels in rest)],
        ("b", "t", *columns),
    )
    return ir.view(node, X.axes)


# --- the chain at a linear --------------------------------------------------------


@dataclass
class _Linear:
    rules: Sequence[Mapping[str, Node]]
    origins: dict[Node, Any]
    absent: Mapping[Node, Node]
    classes: dict[int, list[tuple[str, Node]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.rules:
            for target, rule in one.items():
                members = self.classes.setdefault(class_of(target, rule), [])
                members.append((target, rule))

    def _of(self, number: int, target: str) -> list[Node]:
        return [rule for t, rule in self.classes.get(number, ()) if t == target]

    def _put(self, rule: Node, values: Mapping[Node, Node]) -> Node:
        return ir.replace([rule], values, self.origins)[0]

    def output(self) -> Node:
        """y after all rules."""
        x, into_delta = self._inputs()
        weight, bias = self._weights()
        y = linear_product(weight, x, bias)
        base = self._put(BASE, self.absent)
        for rule in self._of(DELTA, "y"):
            delta = _difference(self._put(rule, {Y: base}), base)
            y = ir.add((y, self._put(delta, {X: into_delta})))
        for rule in self._of(OUTPUT, "y"):
            y = self._put(rule, {Y: y, X: x, W: weight, BIAS: bias})
        return self._shifted(y)

    def _inputs(self) -> tuple[Node, Node]:
        """What W' multiplies, and what deltas read.

        W R x is W (R x): the input is rotated, unless later rules need W R itself.
        """
        x: Node = X
        for rule in self._of(INPUT, "x"):
            x = self._put(rule, {X: x})
        rotated = x
        for rule in reversed(self._of(INPUT, "W")):
            terms = right_factor(rule)
            assert terms is not None
            rotated = apply_right(terms, rotated)
        return (x if self._of(WEIGHT, "W") else rotated), rotated

    def _weights(self) -> tuple[Node, Node]:
        """W and bias after the rules that change them in place."""
        weight: Node = W
        for rule in self._of(DELTA, "W"):
            weight = ir.add((weight, _difference(rule, W)))
        replacing = self._of(WEIGHT, "W")
        for rule in (*self._of(INPUT, "W"), *replacing) if replacing else ():
            weight = self._put(rule, {W: weight})
        bias = self.absent.get(BIAS, BIAS)
        for rule in self._of(WEIGHT, "bias"):
            bias = self._put(rule, {BIAS: bias, W: weight})
        return weight, bias

    def _shifted(self, y: Node) -> Node:
        base = self._put(BASE, self.absent)
        zero = self.absent.get(BIAS, BIAS)
        for target, rule in self.classes.get(SHIFT, ()):
            if target == "y":
                shift = _difference(self._put(rule, {Y: base}), base)
            else:
                shift = over_tokens(_difference(rule, zero))
            y = ir.add((y, shift))
        return y
