"""What a spec asks for, before any model is known: names resolved, macros expanded.

In: a `Unit`.  Out: `Request`s, one for each method applied, in written order.  This is
all that `peftc check` needs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from peftc.diagnostics.core import Diagnostics, PeftcError, fail, suggestion
from peftc.diagnostics.resolve import (
    BadLayers,
    Cycle,
    NoTarget,
    NotAWrapper,
    NothingToCompile,
    TooMuch,
    UnknownMethod,
    UnknownScope,
    WrongArgument,
)
from peftc.diagnostics.space import OpenSpace
from peftc.expr.knobs import Given, check_knobs
from peftc.resolve.groups import GROUPS
from peftc.resolve.selectors import Restriction, Selector, check_name
from peftc.resolve.values import CHOICES, Environment, evaluate
from peftc.syntax import ast
from peftc.view import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peftc.resolve.files import Unit
    from peftc.syntax.source import Span

LIMIT = 4096  # applications a spec may expand to

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """One method applied: where, with which knobs, within which scopes.

    `inner` are the requests a wrapper wraps, each for itself; they carry the sites.
    """

    method: ast.Method
    selectors: tuple[Selector, ...]
    knobs: Mapping[str, Given]
    scopes: tuple[Restriction, ...]
    span: Span
    inner: tuple[Request, ...] = ()


@dataclass(frozen=True)
class _Context:
    """Where in the expansion we are."""

    names: Environment
    scopes: tuple[Restriction, ...] = ()
    macros: tuple[str, ...] = ()


@dataclass
class _Expansion:
    """The walk over a spec: errors are collected, applications counted."""

    unit: Unit
    errors: Diagnostics = field(default_factory=Diagnostics)
    count: int = 0

    def attempt(self, step: Callable[[], T]) -> T | None:
        """Run a step; keep its errors and go on with None."""
        try:
            return step()
        except PeftcError as error:
            self.errors.absorb(error)
            return None


def requests(unit: Unit) -> tuple[Request, ...]:
    """All that the unit's main expression applies, in written order.

    Raises:
        PeftcError: with every error of names, arguments and knobs.
    """
    if unit.main is None:
        raise fail(NothingToCompile())
    walk = _Expansion(unit)
    names = _lets(walk)
    walk.errors.check()
    found = tuple(_expand(unit.main.body, _Context(names), walk))
    if walk.count > LIMIT:
        raise fail(TooMuch(span=unit.main.span, limit=LIMIT))
    walk.errors.check()
    return found


def _lets(walk: _Expansion) -> dict[str, Given]:
    """Values of all lets, in an order in which each needs only earlier ones."""
    values: dict[str, Given] = {}
    for name in walk.unit.lets:
        walk.attempt(partial(_let, name, (), values, walk.unit.lets))
    return values


def _let(
    name: str,
    chain: tuple[str, ...],
    values: dict[str, Given],
    lets: Mapping[str, ast.Let],
) -> None:
    if name in values:
        return
    if name in chain:
        text = " is in terms of ".join(f"`{n}`" for n in (*chain, name))
        raise fail(Cycle(span=lets[name].span, chain=text))
    for used in _names(lets[name].value):
        if used in lets:
            _let(used, (*chain, name), values, lets)
    values[name] = evaluate(lets[name].value, values)


def _names(expr: ast.Expr) -> Iterator[str]:
    """The names an arithmetic expression reads."""
    match expr:
        case ast.Name(word):
            yield word
        case ast.Negate(operand):
            yield from _names(operand)
        case ast.Binary(_, left, right):
            yield from _names(left)
            yield from _names(right)


def _expand(expr: ast.SpecExpr, at: _Context, walk: _Expansion) -> Iterator[Request]:
    if walk.count > LIMIT:
        return
    match expr:
        case ast.Sum(terms):
            for term in terms:
                yield from _expand(term, at, walk)
        case ast.Scoped(body, scope):
            where = walk.attempt(partial(_scope, scope, at.names))
            if where:
                at = replace(at, scopes=(*at.scopes, where))
            yield from _expand(body, at, walk)
        case ast.Apply():
            yield from walk.attempt(partial(_apply, expr, at, walk)) or ()


def _scope(scope: ast.Scope, names: Environment) -> Restriction:
    if scope.name not in SCOPES:
        hint = suggestion(scope.name, SCOPES) or f"scopes are {', '.join(SCOPES)}"
        raise fail(UnknownScope(span=scope.span, name=scope.name, hint=hint))
    if (scope.name in ("layers", "spindle")) != bool(scope.ranges):
        problem = "`layers` and `spindle` take ranges, the other scopes take none"
        hint = "`layers(0..11)`, `spindle(1..2)`, `enc`, `dec`, `cross`"
        raise fail(BadLayers(span=scope.span, problem=problem, hint=hint))
    ranges = tuple(_range(r, names) for r in scope.ranges)
    if scope.name == "spindle":
        if any(first < 1 or last > GROUPS for first, last in ranges):
            problem = f"the groups of a spindle are 1..{GROUPS}"
            raise fail(BadLayers(span=scope.span, problem=problem))
        return Restriction(scope.name, scope.span, groups=ranges)
    return Restriction(scope.name, scope.span, ranges)


def _range(written: ast.LayerRange, names: Environment) -> tuple[int, int]:
    first = _layer(written.first, names)
    last = _layer(written.last, names)
    if first > last:
        problem = f"{first}..{last} holds no layer"
        hint = f"write {last}..{first}"
        raise fail(BadLayers(span=written.span, problem=problem, hint=hint))
    return first, last


def _layer(written: ast.Expr, names: Environment) -> int:
    value = evaluate(written, names).value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        problem = "a layer is a whole number from 0"
        raise fail(BadLayers(span=written.span, problem=problem))
    return value


def _apply(expr: ast.Apply, at: _Context, walk: _Expansion) -> tuple[Request, ...]:
    library = walk.unit.library
    if expr.name in CHOICES:
        raise fail(OpenSpace(span=expr.span, word=expr.name))
    if expr.name in library.macros:
        return _macro(expr, library.macros[expr.name], at, walk)
    if expr.name not in library.methods:
        known = (*library.methods, *library.macros)
        hint = suggestion(expr.name, known) or "`peftc methods` lists them"
        raise fail(UnknownMethod(span=_name(expr), name=expr.name, hint=hint))
    walk.count += 1
    return (_method(expr, library.methods[expr.name], at, walk),)


def _name(expr: ast.Apply) -> Span:
    """Where the name of what is applied stands."""
    return replace(expr.span, end=expr.span.start + len(expr.name))


def _macro(
    expr: ast.Apply, macro: ast.Macro, at: _Context, walk: _Expansion
) -> tuple[Request, ...]:
    """Expand a macro: its body, with its parameters given or defaulted."""
    if macro.name in at.macros:
        chain = " applies ".join(f"`{n}`" for n in (*at.macros, macro.name))
        raise fail(Cycle(span=expr.span, chain=chain))
    given = _macro_arguments(expr, macro, at)
    lets = {n: v for n, v in at.names.items() if n in walk.unit.lets}
    names = dict(lets)
    for parameter in macro.params:
        names[parameter.name] = _parameter(parameter, given, names, expr)
    inside = _Context(names, at.scopes, (*at.macros, macro.name))
    return tuple(_expand(macro.body, inside, walk))


def _macro_arguments(
    expr: ast.Apply, macro: ast.Macro, at: _Context
) -> dict[str, Given]:
    known = [p.name for p in macro.params]
    given = {}
    for arg in expr.args:
        if not arg.name or isinstance(arg.value, (ast.Optional, *SPEC_NODES)):
            problem = f"`{macro.name}` is a spec; its arguments are given by name"
            hint = f"its parameters are {', '.join(known)}" if known else ""
            raise fail(WrongArgument(span=arg.span, problem=problem, hint=hint))
        if arg.name not in known:
            problem = f"`{macro.name}` has no parameter `{arg.name}`"
            hint = suggestion(arg.name, known)
            raise fail(WrongArgument(span=arg.span, problem=problem, hint=hint))
        given[arg.name] = evaluate(arg.value, at.names)
    return given


def _parameter(
    parameter: ast.Parameter,
    given: Mapping[str, Given],
    names: Environment,
    expr: ast.Apply,
) -> Given:
    if parameter.name in given:
        return given[parameter.name]
    if parameter.default is None:
        problem = f"`{expr.name}` needs `{parameter.name}`"
        raise fail(WrongArgument(span=expr.span, problem=problem))
    return evaluate(parameter.default, names)


SPEC_NODES = (ast.Apply, ast.Scoped, ast.Sum)


def _method(
    expr: ast.Apply, method: ast.Method, at: _Context, walk: _Expansion
) -> Request:
    wrapped = next((p for p in method.params if p.type == "method"), None)
    knobs = _knobs(expr, at, walk)
    targets = [arg for arg in expr.args if not arg.name]
    if wrapped:
        inner = _inner(expr, wrapped, targets, at, walk)
        check_knobs(method, knobs, expr.span)
        return Request(method, (), knobs, at.scopes, expr.span, inner)
    places = {c.place for c in method.clauses}
    if targets and places == {"model"}:
        problem = f"`{method.name}` is about the model as a whole; it takes no sites"
        raise fail(WrongArgument(span=targets[0].span, problem=problem))
    selectors = _selectors(method, targets, walk)
    check_knobs(method, knobs, expr.span)
    alone = ({"attention"}, {"input"}, {"model"}, {"side"})
    if not targets and places in alone:
        selectors = (Selector(next(iter(places)), expr.span),)
    elif not targets:
        example = ", ".join(("q, v", *(f"{n}=..." for n in knobs)))
        raise fail(NoTarget(span=expr.span, method=method.name, example=example))
    return Request(method, selectors, knobs, at.scopes, expr.span)


def _knobs(expr: ast.Apply, at: _Context, walk: _Expansion) -> dict[str, Given]:
    knobs = {}
    for arg in expr.args:
        if not arg.name:
            continue
        if isinstance(arg.value, (ast.Optional, *SPEC_NODES)):
            problem = f"`{arg.name}` takes a value"
            raise fail(WrongArgument(span=arg.span, problem=problem))
        value = walk.attempt(partial(evaluate, arg.value, at.names))
        if value:
            knobs[arg.name] = value
    return knobs


def _inner(
    expr: ast.Apply,
    knob: ast.Parameter,
    targets: list[ast.Arg],
    at: _Context,
    walk: _Expansion,
) -> tuple[Request, ...]:
    """What a wrapper wraps; the scopes around the wrapper hold inside it."""
    if len(targets) != 1 or not isinstance(targets[0].value, SPEC_NODES):
        problem = f"`{expr.name}` wraps one method expression as `{knob.name}`"
        hint = f"`{expr.name}(METHOD(q, v))`; several are joined with `+`"
        raise fail(NotAWrapper(span=expr.span, problem=problem, hint=hint))
    return tuple(_expand(targets[0].value, at, walk))


def _selectors(
    method: ast.Method, targets: list[ast.Arg], walk: _Expansion
) -> tuple[Selector, ...]:
    found = (walk.attempt(partial(_selector, method, arg)) for arg in targets)
    return tuple(s for s in found if s)


def _selector(method: ast.Method, arg: ast.Arg) -> Selector:
    value, optional = arg.value, isinstance(arg.value, ast.Optional)
    if isinstance(value, ast.Optional):
        value = value.target
    if isinstance(value, SPEC_NODES):
        problem = f"`{method.name}` is no wrapper: it takes sites"
        raise fail(NotAWrapper(span=arg.span, problem=problem))
    if isinstance(value, ast.Name):
        selector = Selector(value.id, arg.span, optional=optional)
    elif isinstance(value, ast.String):
        selector = Selector(value.value, arg.span, glob=True, optional=optional)
    else:
        problem = "a positional argument is a site"
        hint = f"knobs are given by name; `peftc explain {method.name}` lists them"
        raise fail(WrongArgument(span=arg.span, problem=problem, hint=hint))
    check_name(selector)
    return selector
