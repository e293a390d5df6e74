"""The numbers and words of a spec: lets, macro arguments and arithmetic on them.

In: an expression and an environment of names.  Out: a `Given`, the value with its unit
and the span the user wrote it at.  Nothing is evaluated but `+ - * /` on numbers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.resolve import BadArithmetic, UnknownName
from peftc.diagnostics.space import OpenSpace
from peftc.expr.formulas import formula, is_open
from peftc.expr.knobs import Given
from peftc.expr.numbers import compute
from peftc.syntax import ast
from peftc.syntax.print import print_expr

if TYPE_CHECKING:
    from peftc.syntax.source import Span

Environment: TypeAlias = Mapping[str, Given]

ONE_OF, RANGE = CHOICES = ("one_of", "range")
"""What stands for several values or specs; only `peftc search` decides them."""

WORDS: dict[str, bool] = {"true": True, "false": False}
OPERATORS: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


def evaluate(expr: ast.Expr, names: Environment) -> Given:
    """The value of a spec-level expression.

    Raises:
        PeftcError: PEFT208 for an unknown name in arithmetic, PEFT271 for arithmetic
            that has no value, PEFT681 for a choice.
    """
    if is_open(expr, names):
        return Given(0, expr.span, formula=formula(expr, names))
    match expr:
        case ast.Number(value, unit):
            return Given(value, expr.span, unit)
        case ast.String(value):
            return Given(value, expr.span, quoted=True)
        case ast.Name(word):
            return _name(word, expr.span, names)
        case ast.Negate(operand):
            return Given(-_number(operand, names), expr.span)
        case ast.Call(ast.Name(word)) if word in CHOICES:
            raise fail(OpenSpace(span=expr.span, word=word))
        case ast.Call():
            found = compute(formula(expr, names), {})
            assert found is not None
            plain = float(found) if isinstance(found, Fraction) else found
            return Given(plain, expr.span)
        case ast.Binary(op, left, right) if op in OPERATORS:
            numbers = _number(left, names), _number(right, names)
            return Given(_combine(op, numbers, expr.span), expr.span)
    problem = f"`{print_expr(expr)}` is not a number, word, flag or string"
    raise fail(BadArithmetic(span=expr.span, problem=problem))


def _name(word: str, span: Span, names: Environment) -> Given:
    """A let, a flag, or else the word itself (`gelu`); knobs judge words."""
    if word in names:
        known = names[word]
        return replace(known, span=span)
    return Given(WORDS.get(word, word), span)


def _number(expr: ast.Expr, names: Environment) -> int | float:
    given = evaluate(expr, names)
    if isinstance(given.value, bool) or not isinstance(given.value, (int, float)):
        if isinstance(expr, ast.Name) and expr.id not in names:
            hint = suggestion(expr.id, names)
            raise fail(UnknownName(span=expr.span, name=expr.id, hint=hint))
        problem = f"`{print_expr(expr)}` is not a number"
        raise fail(BadArithmetic(span=expr.span, problem=problem))
    return given.value / 100 if given.unit == "%" else given.value


def _combine(op: str, numbers: tuple[float, float], span: Span) -> int | float:
    try:
        value = OPERATORS[op](*numbers)
    except (ZeroDivisionError, OverflowError) as error:
        raise fail(BadArithmetic(span=span, problem=str(error))) from None
    whole = all(isinstance(n, int) for n in numbers) and value == int(value)
    return int(value) if whole else value
