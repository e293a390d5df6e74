"""From the body of a clause to an `Equation`: declarations, rules, losses as IR.

In: a clause of a checked method, the knobs' values and the site's sizes.  Out: an
`Equation` over the leaves of the site and of its tensors.  Names of tensors and of
sizes carry the prefix of the instance, so that two applications never meet.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics, PeftcError, fail
from peftc.diagnostics.definitions import (
    CannotRewrite,
    InitialShape,
    LossNotScalar,
    NameTaken,
    PrimedTwice,
    RuleOrder,
    RuleShape,
)
from peftc.diagnostics.equations import NotAtThisPlace
from peftc.diagnostics.networks import NetworkPlace
from peftc.diagnostics.training import LossReadsActivations
from peftc.diagnostics.wrappers import RestMisplaced
from peftc.expr import terms
from peftc.expr.compose import BASE, compose
from peftc.expr.controls import Control, read_control
from peftc.expr.distributions import distribution
from peftc.expr.equation import Declaration, Equation, Initial, Stored
from peftc.expr.ir import Leaf, add, leaf, literal, walk
from peftc.expr.networks import Network, read_network
from peftc.expr.places import AXES, TARGETS
from peftc.expr.rows import attention_rule, check_paired, input_place, input_rows
from peftc.expr.scope import TOKENS, Scope, Value, effective, kind_of
from peftc.expr.sizes import Size, show
from peftc.expr.spots import header, spot
from peftc.expr.stores import check_stores, stored
from peftc.expr.uses import names_in
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peftc.expr.ir import Node
    from peftc.syntax.source import Span
    from peftc.view import Kind

SIZES = ("size", "derived")
"""Types of knobs that may be axes."""

WORDED = ("choice", "places", "pairs", "opening", "text")
"""Types of knobs whose values are words."""


def elaborate(
    clause: ast.Clause,
    knobs: Mapping[str, int | float | str | bool],
    sizes: Mapping[str, int],
    prefix: str = "",
    inner: Mapping[str, Sequence[Equation]] | None = None,
) -> Equation:
    """The equation of one application at one site.

    At a linear, a rule for `y` is the whole effect of the clause: what its rules for W,
    bias and x do is in it, and they are not listed beside it.

    Args:
        knobs: the values of the method's knobs (`knobs.bind_knobs`).
        sizes: the numbers of the site's axes.
        prefix: of the names of tensors and sizes, `lora#2.`.
        inner: for each knob of type `method`, the equations of what is wrapped.

    Raises:
        PeftcError: with all errors; of a method that was checked, only those that
            depend on numbers (a division by zero).
    """
    wrapped = inner or {}
    kind = kind_of(clause.place)
    assert kind is not None
    scope = at_site(kind, knobs, sizes, prefix)
    scope.wrapped = {n: partial(_after, e, kind) for n, e in wrapped.items()}
    body = Body(scope, prefix)
    body.read(clause)
    body.errors.check()
    return body.equation([e for parts in wrapped.values() for e in parts])


def values_of(
    clause: ast.Clause,
    exprs: Sequence[ast.Expr],
    knobs: Mapping[str, int | float | str | bool],
    sizes: Mapping[str, int],
    prefix: str = "",
) -> list[Node]:
    """What expressions mean at the end of a clause that wraps nothing."""
    kind = kind_of(clause.place)
    assert kind is not None
    body = Body(at_site(kind, knobs, sizes, prefix), prefix)
    body.read(clause)
    return [terms.evaluate(expr, body.scope).node for expr in exprs]


def at_site(
    kind: Kind,
    knobs: Mapping[str, int | float | str | bool],
    sizes: Mapping[str, int],
    prefix: str,
) -> Scope:
    """The scope of a clause at a site: knobs have values."""
    flags = {n: v for n, v in knobs.items() if isinstance(v, bool)}
    words = {n: v for n, v in knobs.items() if isinstance(v, str)}
    numbers = {
        n: v for n, v in knobs.items() if not isinstance(v, str) and n not in flags
    }
    whole = {n: v for n, v in numbers.items() if isinstance(v, int)}
    return Scope(
        kind,
        {**numbers, **{axis: sizes[axis] for axis in AXES[kind]}},
        {**{n: Size.of(prefix + n) for n in whole}, **_axes(kind)},
        functions=words,
        flags=flags,
        words=words,
        extents={**{prefix + n: v for n, v in whole.items()}, **sizes},
    )


def _axes(kind: str) -> dict[str, Size]:
    return {axis: Size.of(axis) for axis in AXES[kind]}


def symbolic(kind: Kind, knobs: Mapping[str, str]) -> Scope:
    """The scope in which a definition is checked: knobs have types, not values.

    Args:
        knobs: names of knob types by knob.
    """
    numbers = ("size", "derived", "count", "fraction", "scale", "number")
    known = {n: None for n, t in knobs.items() if t in numbers}
    return Scope(
        kind,
        {**known, **dict.fromkeys(AXES[kind])},
        {**{n: Size.of(n) for n, t in knobs.items() if t in SIZES}, **_axes(kind)},
        functions={n: None for n, t in knobs.items() if t == "function"},
        flags={n: None for n, t in knobs.items() if t == "flag"},
        words={n: None for n, t in knobs.items() if t in WORDED},
        wrapped={n: _anything for n, t in knobs.items() if t == "method"},
    )


def _anything(value: Leaf) -> Node:
    """What some method may make of a value."""
    return leaf(f"#{value.name}", value.kind, value.axes)


def _after(equations: Sequence[Equation], kind: Kind, value: Leaf) -> Node:
    """A value of the site after other equations alone."""
    if not equations:
        return value
    if len(equations) == 1:
        rules = equations[0].rules
        return effective(rules) if kind == "linear" else rules.get(value.name, value)
    outputs = compose(kind, equations, biased=True).outputs
    if kind != "linear":
        return outputs.get(value.name, value)
    return add((value, outputs["y"], BASE), (1, 1, -1))  # W x + bias cancels in order


# --- statements ----------------------------------------------------------------------


@dataclass
class Body:
    """A clause as far as it has been read; errors are collected, reading goes on."""

    scope: Scope
    prefix: str = ""
    common: str = ""
    """The prefix, if another, of tensors that several readings of a clause share."""
    declarations: list[Declaration] = field(default_factory=list)
    losses: list[Node] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    stores: list[Stored] = field(default_factory=list)
    networks: list[Network] = field(default_factory=list)
    ruled: dict[str, Span] = field(default_factory=dict)
    errors: Diagnostics = field(default_factory=Diagnostics)

    def read(self, clause: ast.Clause) -> None:
        """Read a whole clause."""
        self._attempt(partial(check_stores, clause))
        for statement in clause.body:
            self.take(statement)
        if self.scope.kind == "attention" and not len(self.errors):
            check = partial(check_paired, self.scope.rules, header(clause.span))
            self._attempt(check)

    def equation(self, inner: Sequence[Equation] = ()) -> Equation:
        """What the clause says, with the declarations of what it wraps."""
        rules = self.scope.rules
        if "y" in rules:
            rules = {"y": rules["y"]}
        if self.scope.kind == "attention":  # what a wrapper does not rule stays
            around = {t: r for one in inner for t, r in one.rules.items()}
            rules = {**around, **rules}
        origins = dict(self.scope.origins)
        for equation in inner:
            origins = {**equation.origins, **origins}
        declared = (d for equation in inner for d in equation.declarations)
        losses = (node for equation in inner for node in equation.losses)
        controls = (one for equation in inner for one in equation.controls)
        return Equation(
            (*self.declarations, *declared),
            rules,
            (*self.losses, *losses),
            origins,
            (*self.controls, *controls),
            tuple(self.stores),
            next(iter(self.networks), None),
        )

    def take(self, statement: ast.Statement) -> None:
        """Read one statement."""
        match statement:
            case ast.Declare(tensors=tensors):
                for tensor in tensors:
                    self._attempt(partial(self._declare, statement, tensor))
            case ast.Define():
                self._attempt(partial(self._define, statement))
            case ast.Rule():
                self._attempt(partial(self._rule, statement))
            case ast.Loss():
                self._attempt(partial(self._loss, statement))
            case ast.Train():
                self._attempt(partial(self._train, statement))
            case ast.Store():
                self._attempt(partial(self._store, statement))
            case ast.Network():
                self._attempt(partial(self._network, statement))

    def _attempt(self, step: Callable[[], None]) -> None:
        try:
            step()
        except PeftcError as error:
            self.errors.absorb(error)

    def _claim(self, name: str, span: Span) -> None:
        """Take a new name; until it has a value, reading it fails silently."""
        meaning = meaning_of(name, self.scope)
        self.scope.tensors[name] = None
        if meaning:
            rewrite = name in TARGETS[self.scope.kind]
            hint = f"`{name}' = ...` rewrites it" if rewrite else "choose another name"
            where = spot(span, name)
            raise fail(NameTaken(span=where, name=name, meaning=meaning, hint=hint))

    def _declare(self, declare: ast.Declare, tensor: ast.Tensor) -> None:
        self._claim(tensor.name, tensor.span)
        axes, init = None, None
        errors = Diagnostics()
        try:
            axes = self._axes(tensor)
        except PeftcError as error:
            errors.absorb(error)
        try:
            init = self._initial(tensor, axes, declare.kind)
        except PeftcError as error:
            errors.absorb(error)
        if axes is not None:
            together = bool(self.common) and declare.shared
            name = (self.common if together else self.prefix) + tensor.name
            node = leaf(name, declare.kind, axes)
            self.scope.tensors[tensor.name] = Value(node)
            if init:
                shared = declare.shared and not together
                new = Declaration(name, declare.kind, shared, axes, init, tensor.span)
                self.declarations.append(new)
        errors.check()

    def _axes(self, tensor: ast.Tensor) -> tuple[Size, ...]:
        errors, axes = Diagnostics(), list[Size]()
        for axis in tensor.axes:
            try:
                axes += self._axis(axis, tensor)
            except PeftcError as error:
                errors.absorb(error)
        errors.check()
        return tuple(axes)

    def _axis(self, axis: ast.Expr, tensor: ast.Tensor) -> tuple[Size, ...]:
        """One axis; for `...`, the axes of p."""
        if axis != ast.Name(ast.REST, span=axis.span):
            return (self.scope.size(axis),)
        if self.scope.kind != "param":
            problem = "`...` are the axes of `p`, in a clause `on param`"
            raise fail(RestMisplaced(span=axis.span, problem=problem))
        if tensor.axes[-1] is not axis or tensor.axes.count(axis) > 1:
            problem = "`...` stands once and behind all other axes"
            raise fail(RestMisplaced(span=axis.span, problem=problem))
        return self.scope.site["p"].axes

    def _initial(
        self, tensor: ast.Tensor, axes: tuple[Size, ...] | None, kind: str
    ) -> Initial:
        if tensor.init is None:
            return Initial("", node=literal(0))
        if self._is_p(tensor.init):
            return self._copied(tensor, axes)
        self.scope.initial = True
        try:
            if isinstance(tensor.init, ast.Random):
                return distribution(tensor.init, axes, self.scope, kind)
            value = terms.evaluate(tensor.init, self.scope)
        finally:
            self.scope.initial = False
        if axes is not None and value.axes and value.axes != axes:
            shapes = f"{show(axes)}, its initial value is {show(value.axes)}"
            problem = f"`{tensor.name}` is {shapes}"
            raise fail(InitialShape(span=tensor.init.span, problem=problem))
        return Initial("", node=value.node)

    def _is_p(self, init: ast.Random | ast.Expr) -> bool:
        return self.scope.kind == "param" and init == ast.Name("p", span=init.span)

    def _copied(self, tensor: ast.Tensor, axes: tuple[Size, ...] | None) -> Initial:
        """The initial value of p, repeated along the axes in front of p's."""
        given = self.scope.site["p"]
        self.scope.read.add("p")
        if axes is not None and axes[len(axes) - len(given.axes) :] != given.axes:
            problem = f"`{tensor.name}` starts as `p` and has other axes: write `...`"
            assert tensor.init is not None
            raise fail(InitialShape(span=tensor.init.span, problem=problem))
        return Initial("", copies=given.name)

    def _define(self, define: ast.Define) -> None:
        self._claim(define.name, define.span)
        self.scope.tensors[define.name] = terms.evaluate(define.value, self.scope)

    def _rule(self, rule: ast.Rule) -> None:
        kind, target = self.scope.kind, rule.target
        where = spot(rule.span, f"{target}'")
        if target not in TARGETS[kind]:
            targets = ", ".join(f"`{t}'`" for t in TARGETS[kind])
            place = {"place": kind, "targets": targets}
            raise fail(CannotRewrite(span=where, target=target, **place))
        errors = Diagnostics()
        if target in self.ruled:
            line = self.ruled[target].line
            errors.add(PrimedTwice(span=where, target=target, line=line))
        elif "y" in self.ruled:
            errors.add(RuleOrder(span=where, target=target))
        self.ruled.setdefault(target, where)
        try:
            node = self._right_side(rule)
            self.scope.rules.setdefault(target, node)
        except PeftcError as error:
            errors.absorb(error)
        errors.check()

    def _right_side(self, rule: ast.Rule) -> Node:
        if rule.target == "before":
            self.scope.read |= names_in(rule.value)
            return input_place(rule, self.scope.words)
        value = terms.evaluate(rule.value, self.scope)
        if self.scope.kind == "attention":
            return attention_rule(rule, value)
        if self.scope.kind == "input":
            return input_rows(rule, value)
        wanted = self.scope.site[rule.target].axes
        if value.axes != wanted:
            turned = value.axes[::-1] == wanted
            shapes = {"wanted": show(wanted), "axes": show(value.axes)}
            hint = "its transpose fits: `(...).T`" if turned else ""
            target = rule.target
            span = rule.value.span
            raise fail(RuleShape(span=span, target=target, **shapes, hint=hint))
        self._check_read(rule, value.node)
        return value.node

    def _check_read(self, rule: ast.Rule, node: Node) -> None:
        """A weight is the same for all tokens, and x is there before y."""
        fixed = self.scope.site[rule.target].kind == "weight"
        for part in walk(node):
            if not isinstance(part, Leaf) or part.kind != "input":
                continue
            name = part.name.lstrip("#")
            if fixed:
                problem = f"`{rule.target}` is a weight; it cannot depend on `{name}`"
            elif rule.target == "x" and name == "y":
                problem = "`y` is computed from `x`; a rule for `x` cannot read it"
            else:
                continue
            span = spot(rule.value.span, name)
            raise fail(NotAtThisPlace(span=span, problem=problem))

    def _loss(self, loss: ast.Loss) -> None:
        value = terms.evaluate(loss.value, self.scope)
        if value.axes:
            axes = show(value.axes)
            raise fail(LossNotScalar(span=loss.value.span, axes=axes))
        for part in walk(value.node):
            if isinstance(part, Leaf) and part.kind == "input":
                span = spot(loss.value.span, part.name.lstrip("#"))
                raise fail(LossReadsActivations(span=span, name=part.name.lstrip("#")))
        self.losses.append(value.node)

    def _train(self, statement: ast.Train) -> None:
        self.controls.append(read_control(statement, self.scope))

    def _store(self, store: ast.Store) -> None:
        self.stores.append(stored(store, self.scope))

    def _network(self, statement: ast.Network) -> None:
        if self.scope.kind != "side":
            problem = "a network stands beside the backbone: `on side { network ... }`"
            raise fail(NetworkPlace(span=statement.span, problem=problem))
        self.networks.append(read_network(statement, self.scope))


def meaning_of(name: str, scope: Scope) -> str:
    """What a name means already, or the empty string."""
    if name in scope.site:
        return "a value of the site"
    if name in (*AXES[scope.kind], *TOKENS):
        return "an axis"
    if name in scope.knobs:
        return "a knob"
    if name in scope.tensors:
        return "defined above"
    return "a function" if name in terms.FUNCTIONS else ""
