"""What the names of an equation mean: tensors, numbers, sizes, functions, indices.

In: a kind of place with knobs that have numbers (at a site) or only types (when a
definition is checked).  Out: `Scope`, in which `peftc.expr.terms` evaluates expressions
to `Value`s.  In both cases sizes stay names, so that two knobs of equal number are two
axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftc.diagnostics.core import PeftcError, fail, suggestion
from peftc.diagnostics.definitions import InitialShape
from peftc.diagnostics.equations import (
    DividedBySum,
    NotANumber,
    NotASize,
    NotAtThisPlace,
    UnknownVariable,
    WrappedMisused,
)
from peftc.expr.ir import Leaf, Node, add, leaf, literal
from peftc.expr.places import AXES, PLACES, READABLE, linear_product, over_tokens
from peftc.expr.sizes import Size
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.expr.numbers import Number
    from peftc.syntax.source import Span
    from peftc.view import Kind

TOKENS = ("b", "t")
MAIN = {"linear": "y", "hidden": "h", "norm": "g", "attention": "k", "input": "rows"}
MAIN = {"linear": "y", "hidden": "h", "norm": "g", "attention": "k", "param": "p"}
"""The value that a wrapper passes to what it wraps."""

REDIRECTIONS = {"attn": ("q", "k", "v", "o"), "ffn": ("up", "gate", "down")}
"""Sublayers and the linears in them that a clause may rewrite instead."""


KINDS: Mapping[str, Kind] = {
    "linear": "linear",
    "hidden": "hidden",
    "norm": "norm",
    "attention": "attention",
    "model": "model",
    "input": "input",
    "param": "param",
    "side": "side",
}


def kind_of(place: str) -> Kind | None:
    """The kind of site a clause rewrites, or None for an unknown place."""
    block, _, role = place.partition(".")
    if role:
        return "linear" if role in REDIRECTIONS.get(block, ()) else None
    return KINDS.get(place)


@dataclass(frozen=True)
class Value:
    """The value of an expression.

    The first axes of `node` are those of `indices`, bound by binders around; they take
    part in no operation.  A `constant` is known before any tensor is; its number is
    None while only the types of knobs are.
    """

    node: Node
    indices: tuple[str, ...] = ()
    constant: bool = False
    number: Number | None = None

    @property
    def axes(self) -> tuple[Size, ...]:
        """The axes that operations see."""
        return self.node.axes[len(self.indices) :]


_UNKNOWN_NUMBER = leaf("#", "buffer", ())


def constant(number: Number | None) -> Value:
    """A number made of knobs and sizes, or one that is not known yet."""
    node = _UNKNOWN_NUMBER if number is None else literal(float(number))
    return Value(node, constant=True, number=number)


def silent() -> PeftcError:
    """The failure of an expression whose cause was reported elsewhere."""
    return PeftcError(())


@dataclass
class Scope:
    """The names that one clause can use, as far as it has been read.

    `numbers`, `functions`, `flags` and `words` map knobs to values, None while these
    are not known;
    `sizes` are the knobs and axes that may be sizes, under the names that the IR uses;
    `extents` their numbers where known.  `wrapped` gives what an inner method makes of
    a value of the place.
    """

    kind: Kind
    numbers: Mapping[str, Number | None]
    sizes: Mapping[str, Size]
    functions: Mapping[str, str | None] = field(default_factory=dict)
    flags: Mapping[str, bool | None] = field(default_factory=dict)
    words: Mapping[str, str | None] = field(default_factory=dict)
    wrapped: Mapping[str, Callable[[Leaf], Node]] = field(default_factory=dict)
    extents: Mapping[str, int] = field(default_factory=dict)
    tensors: dict[str, Value | None] = field(default_factory=dict)
    rules: dict[str, Node] = field(default_factory=dict)
    bound: dict[str, Size] = field(default_factory=dict)
    origins: dict[Node, Span] = field(default_factory=dict)
    read: set[str] = field(default_factory=set)
    tensor: Leaf | None = None
    """At the place `param`: the tensor that `p` stands for."""
    initial: bool = False
    """An initial value is being read: it sees the base's weights and numbers only."""

    @property
    def site(self) -> Mapping[str, Leaf]:
        """The values of the site by name."""
        return {"p": self.tensor} if self.tensor else PLACES[self.kind]

    @property
    def knobs(self) -> frozenset[str]:
        """All knobs that values were given for, or types."""
        known = (*self.numbers, *self.functions, *self.words, *self.flags)
        known = (*known, *self.wrapped)
        return frozenset(known) - set(AXES[self.kind])

    def variables(self) -> list[str]:
        """Every name that an expression may read, for suggestions."""
        known = (*self.site, *self.tensors, *self.numbers, *self.bound)
        return list(dict.fromkeys(known))

    def variable(self, name: ast.Name) -> Value:
        """The value of a name in an expression."""
        self.read.add(name.id)
        if self.initial:
            self._check_initial(name)
        if name.id in self.tensors:
            value = self.tensors[name.id]
            if value is None:
                raise silent()
            return value
        if name.id in READABLE[self.kind]:
            return Value(self.before(name.id))
        if name.id in self.site:
            raise fail(self._no_rows(name))
        if name.id in self.numbers:
            return constant(self.numbers[name.id])
        raise fail(self._no_value(name))

    def _check_initial(self, name: ast.Name) -> None:
        other = name.id in self.tensors
        if other or (name.id in self.site and self.site[name.id].kind == "input"):
            what = "another tensor" if other else "an activation"
            problem = f"`{name.id}` is {what}; only the base's weights are known here"
            raise fail(InitialShape(span=name.span, problem=problem))

    def before(self, name: str) -> Node:
        """A value of the site before this method; y takes in the rules so far."""
        return effective(self.rules) if name == "y" else self.site[name]

    def _no_rows(self, name: ast.Name) -> NotAtThisPlace:
        knob = next(iter(self.wrapped), "")
        said = f"; `{knob}({name.id})` are those of `{knob}`" * bool(knob)
        problem = f"before a method there are no rows of `{name.id}`{said}"
        return NotAtThisPlace(span=name.span, problem=problem)

    def _no_value(
        self, name: ast.Name
    ) -> UnknownVariable | NotANumber | WrappedMisused | NotAtThisPlace:
        span = name.span
        for other, leaves in READABLE.items():
            if name.id in leaves:
                names = ", ".join(f"`{n}`" for n in self.site)
                problem = f"`{name.id}` belongs to `on {other}`; here are {names}"
                return NotAtThisPlace(span=span, problem=problem)
        if name.id in self.wrapped:
            problem = f"`{name.id}` is a method, not a value"
            main = {"knob": name.id, "example": MAIN[self.kind]}
            return WrappedMisused(span=span, problem=problem, **main)
        if name.id in self.bound:
            problem = (
                f"`{name.id}` is an index; it is written in brackets after a tensor"
            )
            return NotANumber(span=span, problem=problem)
        if name.id in (*self.functions, *self.flags, *self.words):
            what = "a function" if name.id in self.functions else "a flag"
            what = "a choice of words" if name.id in self.words else what
            return NotANumber(span=span, problem=f"`{name.id}` is {what}")
        if name.id in TOKENS:
            hint = f"`mean(..., {name.id})` divides by it"
            problem = f"the number of `{name.id}` is not known beforehand"
            return NotANumber(span=span, problem=problem, hint=hint)
        hint = suggestion(name.id, self.variables())
        return UnknownVariable(span=span, name=name.id, hint=hint)

    def size(self, expr: ast.Expr | ast.Axes, *, tokens: bool = False) -> Size:
        """A size expression; `tokens` allows the axes b and t of activations."""
        match expr:
            case ast.Number(int(value), "") if value > 0:
                return Size.of(value)
            case ast.Name(name):
                return self._named_size(expr, name, tokens)
            case ast.Binary(op, left, right) if op != "@":
                return self._combined(op, self.size(left), self.size(right), right.span)
        problem = f"`{expr.span.text}` is no size"
        hint = "sizes are names, whole numbers and + - * / of them"
        raise fail(NotASize(span=expr.span, problem=problem, hint=hint))

    def _named_size(self, expr: ast.Expr, name: str, tokens: bool) -> Size:
        self.read.add(name)
        if name in self.sizes:
            return self.sizes[name]
        if name in TOKENS:
            if tokens:
                return Size.of(name)
            problem = f"`{name}` is an axis of activations; no tensor can have it"
            raise fail(NotASize(span=expr.span, problem=problem))
        hint = suggestion(name, self.sizes) or f"sizes here: {', '.join(self.sizes)}"
        if name in self.knobs:
            hint = f"declare the knob as `{name}: size`"
        problem = f"`{name}` is not a size"
        raise fail(NotASize(span=expr.span, problem=problem, hint=hint))

    def _combined(self, op: str, left: Size, right: Size, span: Span) -> Size:
        if op == "/":
            if len(right.terms) != 1:
                raise fail(DividedBySum(span=span, divisor=span.text))
            return left / right
        if op == "*":
            return left * right
        return left + (right if op == "+" else right * Size.of(-1))

    def extent(self, axis: Size) -> int | None:
        """The number of an axis, if the numbers of its names are known."""
        return axis.value(self.extents) if axis.symbols <= set(self.extents) else None


def effective(rules: Mapping[str, Node]) -> Node:
    """The output of a linear under the rules for W, bias and x.

    Written as y plus what the rules add, so that y - y cancels and a site without bias
    needs none.
    """
    site = PLACES["linear"]
    weight, bias, x = (rules.get(n, site[n]) for n in ("W", "bias", "x"))
    parts: list[Node] = [rules.get("y", site["y"])]
    if weight is not site["W"]:
        parts.append(linear_product(add((weight, site["W"]), (1, -1)), x))
    if x is not site["x"]:
        parts.append(linear_product(site["W"], add((x, site["x"]), (1, -1))))
    if bias is not site["bias"]:
        parts.append(over_tokens(add((bias, site["bias"]), (1, -1))))
    return add(parts)
