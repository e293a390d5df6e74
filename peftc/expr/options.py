"""Options of a statement that names code: `network transformer(reduction=8)`.

In: what the code takes, the arguments of a statement and the scope of its clause.  Out:
the values of all options, checked as knobs of a method are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeVar

from peftc.expr import terms
from peftc.expr.knobs import Given, Knob, bind_knobs, check_knobs, knob_types
from peftc.expr.numbers import TRUTH
from peftc.syntax import ast
from peftc.syntax.parse import parse_method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.scope import Scope
    from peftc.syntax.source import Span

S = TypeVar("S")
"""A signature: what a statement may say to a piece of code."""


def with_offered(own: Mapping[str, S], group: str) -> Mapping[str, S]:
    """A table of signatures and those that installed packages offer under an entry
    point; a package takes no name that is there."""
    found = dict(own)
    for entry in entry_points(group=group):
        found.setdefault(entry.name, entry.load())
    return found


@lru_cache
def header(name: str, options: str) -> ast.Method:
    """Options, written as knobs are, as those of a definition."""
    knobs = f"({options})" if options else ""
    return parse_method(f"method {name}{knobs} on model {{}}")


def read_options(
    method: ast.Method, args: Sequence[ast.Arg], scope: Scope, span: Span
) -> Mapping[str, Knob]:
    """The values of the options that have names; none while those of knobs are open.

    Raises:
        PeftcError: with what is wrong with an option, known or not.
    """
    types = knob_types(method)
    known: dict[str, Given] = {}
    unknown: set[str] = set()
    for arg in args:
        if arg.name:
            words = types[arg.name].words if arg.name in types else ()
            value = _value(arg.value, words, scope)  # type: ignore[arg-type]
            if value is None:
                unknown.add(arg.name)
            else:
                known[arg.name] = Given(value, arg.value.span)
    if not unknown:
        return bind_knobs(method, known, {}, span)
    # An option that is no knob's is reported; one whose value is open is left alone.
    named = {name: Given(0) for name in unknown - set(types)}
    left = tuple(p for p in method.params if p.name not in unknown)
    check_knobs(replace(method, params=left), {**known, **named}, span)
    return {}


def _value(expr: ast.Expr, words: tuple[str, ...], scope: Scope) -> Knob | None:
    """The value of an option; None while those of knobs are not known."""
    if isinstance(expr, ast.String):
        return expr.value
    if isinstance(expr, ast.Name):
        if expr.id in words:
            return expr.id
        if expr.id in TRUTH:
            return expr.id == "true"
        for table in (scope.flags, scope.words, scope.functions):
            if expr.id in table:
                scope.read.add(expr.id)
                return table[expr.id]
    value = terms.evaluate(expr, scope)
    number = value.number if value.constant else None
    return number if number is None or isinstance(number, int) else float(number)
