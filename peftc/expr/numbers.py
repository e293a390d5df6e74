"""Numbers that are known before any tensor is: arithmetic on knobs, sizes and literals.

In: an expression and the values of its names; None for a name that has no number yet.
Out: an int, an exact fraction, a float, a flag or a word (`gelu`), or None where the
value depends on a name without number.  Errors are raised as diagnostics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

from peftc.diagnostics.core import Diagnostics, PeftcError, fail, suggestion
from peftc.diagnostics.equations import (
    CannotCompute,
    NotANumber,
    UnknownFunction,
    UnknownVariable,
    WrongArguments,
)
from peftc.expr.functions import ELEMENTWISE
from peftc.syntax import ast

Number: TypeAlias = int | Fraction | float
Value: TypeAlias = int | Fraction | float | bool | str | None
Environment: TypeAlias = Mapping[str, Value]

LARGEST_SQUARE = 2**40
"""near_sqrt looks for divisors of nothing larger: it tries every number up to 2^20."""

LARGEST_POWER = 2**40
"""power_of_two goes no further."""

TRUTH = {"true": True, "false": False}

WORDS = frozenset((*ELEMENTWISE, "identity")) - {"recip"}
"""Elementwise functions by the names equations use."""


@dataclass(frozen=True)
class Static:
    """A function of numbers, with its form for people and how many arguments it has."""

    form: str
    arity: tuple[int, ...]
    apply: Callable[..., Number]

    @property
    def name(self) -> str:
        """The name before the parentheses."""
        return self.form.partition("(")[0]


def near_sqrt(n: Number) -> int:
    """The largest divisor of a whole number that is not above its square root."""
    whole = int(n)
    if whole != n or whole < 1:
        raise ValueError("near_sqrt takes a whole number, 1 or more")
    if whole > LARGEST_SQUARE:
        raise OverflowError("near_sqrt takes no number above 2^40")
    root = math.isqrt(whole)
    return next(d for d in range(root, 0, -1) if whole % d == 0)


def power_of_two(n: Number) -> int:
    """The smallest power of two that is not below a number from 1."""
    if not 1 <= n <= LARGEST_POWER:
        raise ValueError("power_of_two takes numbers from 1 to 2^40")
    return 1 << (math.ceil(n) - 1).bit_length()


def exact_sqrt(n: Number) -> Number:
    """The square root, exact where it is whole."""
    if n < 0:
        raise ValueError("a negative number has no square root")
    if isinstance(n, int) and math.isqrt(n) ** 2 == n:
        return math.isqrt(n)
    return math.sqrt(n)


def logarithm(n: Number) -> float:
    """The natural logarithm."""
    if n <= 0:
        raise ValueError("only numbers above 0 have a logarithm")
    return math.log(n)


STATIC: Mapping[str, Static] = {
    "sqrt": Static("sqrt(a)", (1,), exact_sqrt),
    "exp": Static("exp(a)", (1,), math.exp),
    "log": Static("log(a)", (1,), logarithm),
    "abs": Static("abs(a)", (1,), abs),
    "min": Static("min(a, b)", (2, 3, 4), min),
    "max": Static("max(a, b)", (2, 3, 4), max),
    "ceil": Static("ceil(a)", (1,), math.ceil),
    "floor": Static("floor(a)", (1,), math.floor),
    "power_of_two": Static("power_of_two(n)", (1,), power_of_two),
    "near_sqrt": Static("near_sqrt(n)", (1,), near_sqrt),
}


def compute(expr: ast.Expr, names: Environment) -> Value:
    """The value of an expression over known names.

    Raises:
        PeftcError: for unknown names and functions, words used as numbers, and
            arithmetic without a value.
    """
    match expr:
        case ast.Number(value, unit):
            return value if not unit else Fraction(str(value)) / 100
        case ast.Name(name):
            return _name(expr, name, names)
        case ast.String(text):
            return text
        case ast.Negate(operand):
            inner = number(operand, names)
            return None if inner is None else -inner
        case ast.Binary(op, left, right) if op != "@":
            return _binary(expr, (left, right), names)
        case ast.Call(ast.Name("choose")):
            return _choose(expr, names)
        case ast.Call(ast.Name(name)):
            return _call(expr, name, names)
    raise fail(
        NotANumber(span=expr.span, problem="this is no number of knobs and sizes")
    )


def number(expr: ast.Expr | ast.Axes, names: Environment) -> Number | None:
    """The value of an expression that must be a number."""
    if isinstance(expr, ast.Axes):
        raise fail(NotANumber(span=expr.span, problem="axes are no number"))
    value = compute(expr, names)
    if isinstance(value, (bool, str)):
        problem = (
            f"`{expr.span.text}` is a {'flag' if value in (True, False) else 'word'}"
        )
        raise fail(NotANumber(span=expr.span, problem=problem))
    return value


def flag(expr: ast.Expr | ast.Axes, names: Environment) -> bool | None:
    """The value of an expression that must be a flag, or `knob is word`."""
    if isinstance(expr, ast.Is):
        word = names.get(expr.name.id)  # of a checked method, a choice
        return None if word is None else word == expr.word
    value = None if isinstance(expr, ast.Axes) else compute(expr, names)
    known = isinstance(expr, ast.Name) and expr.id in names and value is None
    if not known and not isinstance(value, bool):
        problem = f"`{expr.span.text}` is no flag"
        hint = "the first argument of `choose` is a flag, or `knob is word`"
        raise fail(NotANumber(span=expr.span, problem=problem, hint=hint))
    return value if isinstance(value, bool) else None


def each(
    exprs: tuple[ast.Expr | ast.Axes, ...], names: Environment
) -> list[Number | None]:
    """The numbers of several expressions; the errors of all of them at once."""
    errors, found = Diagnostics(), []
    for expr in exprs:
        try:
            found.append(number(expr, names))
        except PeftcError as error:
            errors.absorb(error)
    errors.check()
    return found


def _name(expr: ast.Expr, name: str, names: Environment) -> Value:
    if name in names:
        return names[name]
    if name in TRUTH:
        return TRUTH[name]
    if name in WORDS:
        return name
    hint = suggestion(name, (*names, *WORDS))
    raise fail(UnknownVariable(span=expr.span, name=name, hint=hint))


def _binary(
    expr: ast.Binary, sides: tuple[ast.Expr, ast.Expr], names: Environment
) -> Number | None:
    left, right = each(sides, names)
    return combine(expr, left, right)


def combine(
    expr: ast.Binary, left: Number | None, right: Number | None
) -> Number | None:
    """The value of an operation, None where a side has none yet."""
    if right is not None and right == 0 and expr.op == "/":
        raise fail(CannotCompute(span=expr.span, problem="this divides by zero"))
    if left is None or right is None:
        return None
    return _guarded(expr, lambda: _arithmetic(expr.op, left, right))


def _arithmetic(op: str, left: Number, right: Number) -> Number:
    if op == "+":
        return left + right
    if op == "-":
        return left - right
    if op == "*":
        return left * right
    if isinstance(left, float) or isinstance(right, float):
        return left / right
    return _simple(Fraction(left) / Fraction(right))


def _simple(value: Number) -> Number:
    whole = isinstance(value, Fraction) and value.denominator == 1
    return int(value) if whole else value


def _guarded(expr: ast.Expr, step: Callable[[], Number]) -> Number:
    """The result of a computation, or a diagnostic if it has none."""
    try:
        value = step()
    except (ArithmeticError, ValueError) as error:
        raise fail(CannotCompute(span=expr.span, problem=str(error))) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise fail(CannotCompute(span=expr.span, problem="the result is not finite"))
    return _simple(value)


def _call(expr: ast.Call, name: str, names: Environment) -> Value:
    function = STATIC.get(name)
    if function is None:
        raise fail(_not_static(expr, name))
    check_count(expr, function)
    return call(expr, function, each(expr.args, names))


def check_count(expr: ast.Call, function: Static) -> None:
    """Refuse a call of a function of numbers with too many or too few arguments."""
    if len(expr.args) not in function.arity:
        problem = f"`{function.name}` takes {function.arity[0]}, not {len(expr.args)}"
        raise fail(WrongArguments(span=expr.span, problem=problem, form=function.form))


def call(
    expr: ast.Call, function: Static, values: Sequence[Number | None]
) -> Number | None:
    """The value of a function of numbers, None where an argument has none yet."""
    if any(value is None for value in values):
        return None
    return _guarded(expr, lambda: function.apply(*values))


def _not_static(expr: ast.Call, name: str) -> NotANumber | UnknownFunction:
    if name in WORDS:
        problem = f"`{name}` is for tensors; this must be known beforehand"
        hint = f"functions of numbers are {', '.join(STATIC)}, choose"
        return NotANumber(span=expr.span, problem=problem, hint=hint)
    hint = suggestion(name, (*STATIC, "choose"))
    return UnknownFunction(span=expr.head.span, name=name, hint=hint)


def _choose(expr: ast.Call, names: Environment) -> Value:
    """Both values are checked, one is taken."""
    if len(expr.args) != 3:
        form = "choose(flag, a, b)"
        problem = f"`choose` takes 3, not {len(expr.args)}"
        raise fail(WrongArguments(span=expr.span, problem=problem, form=form))
    condition, *branches = expr.args
    if any(isinstance(branch, ast.Axes) for branch in branches):
        raise fail(NotANumber(span=expr.span, problem="axes are no number"))
    chosen = flag(condition, names)
    values = [compute(b, names) for b in branches if not isinstance(b, ast.Axes)]
    return None if chosen is None else values[0 if chosen else 1]
