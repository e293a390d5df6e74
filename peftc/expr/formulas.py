"""Numbers of a spec that are known at a site only: `d=hidden / 16`.

In: an expression of a spec, and the values of lets and parameters.  Out: the expression
with these values in it, which is worked out where the method is applied: it may name
axes of the site, `sites` and numbers of the model (`MODEL_NUMBERS`).  `per_layer(e)` is
the sum of e over the sites of the application in the site's layer.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.expr import numbers
from peftc.expr.places import AXES
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from peftc.expr.knobs import Given

MODEL_NUMBERS = ("layers", "weights", "outputs")
"""How many layers the model has, in all its stacks; how many parameters; the sum of
`out` over the linears of the site's layer."""
SITE_NUMBERS = frozenset(
    (*(a for axes in AXES.values() for a in axes), "sites", *MODEL_NUMBERS)
)
PER_LAYER = "per_layer"


def _rewritten(expr: ast.Expr, step: Callable[[ast.Expr], ast.Expr | None]) -> ast.Expr:
    """The expression with parts replaced for which `step` gives another."""
    new = step(expr)
    if new is not None:
        return new
    match expr:
        case ast.Negate(operand):
            return replace(expr, operand=_rewritten(operand, step))
        case ast.Binary(_, left, right):
            first, second = _rewritten(left, step), _rewritten(right, step)
            return replace(expr, left=first, right=second)
        case ast.Call(_, args):
            inner = (
                arg if isinstance(arg, ast.Axes) else _rewritten(arg, step)
                for arg in args
            )
            return replace(expr, args=tuple(inner))
    return expr


def names_of(expr: ast.Expr) -> frozenset[str]:
    """The names that an expression reads, functions left out."""
    match expr:
        case ast.Name(name):
            return frozenset((name,))
        case ast.Negate(operand):
            return names_of(operand)
        case ast.Binary(_, left, right):
            return names_of(left) | names_of(right)
        case ast.Call(_, args):
            plain = (names_of(a) for a in args if not isinstance(a, ast.Axes))
            return frozenset().union(*plain)
    return frozenset()


def is_open(expr: ast.Expr, names: Mapping[str, Given]) -> bool:
    """Whether an expression has a value at a site only."""
    read = names_of(expr)
    known = (names[name].formula for name in read & names.keys())
    return bool((read - names.keys()) & SITE_NUMBERS) or any(known)


def formula(expr: ast.Expr, names: Mapping[str, Given]) -> ast.Expr:
    """The expression with the values of known names in it.

    Raises:
        PeftcError: for unknown names and functions, and arithmetic without a value.
    """

    def put(part: ast.Expr) -> ast.Expr | None:
        if not isinstance(part, ast.Name) or part.id not in names:
            return None
        known = names[part.id]
        if known.formula:
            return known.formula
        if isinstance(known.value, (bool, str)):
            return None
        return ast.Number(known.value, known.unit, span=part.span)

    whole = _rewritten(expr, put)
    numbers.compute(_plain(whole), dict.fromkeys(SITE_NUMBERS))
    return whole


def _plain(expr: ast.Expr) -> ast.Expr:
    """The expression with what `per_layer` sums in the place of the sum."""

    def inner(part: ast.Expr) -> ast.Expr | None:
        match part:
            case ast.Call(ast.Name(name), (value,)) if name == PER_LAYER:
                return value if not isinstance(value, ast.Axes) else None
        return None

    return _rewritten(expr, inner)


def settled(expr: ast.Expr, layer: Iterable[Mapping[str, int]]) -> ast.Expr:
    """The expression with its sums over a layer, whose sites have these numbers."""
    every = list(layer)

    def total(part: ast.Expr) -> ast.Expr | None:
        match part:
            case ast.Call(ast.Name(name), (value,)) if name == PER_LAYER:
                found = [numbers.number(value, sizes) or 0 for sizes in every]
                return ast.Number(float(sum(found)), span=part.span)
        return None

    return _rewritten(expr, total)
