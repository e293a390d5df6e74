"""The distributions that initial values are drawn from.

In: `~ kaiming(5)` as written, and the axes of the tensor where they are known.  Out: an
`Initial`, or what does not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.definitions import DistributionArguments, UnknownDistribution
from peftc.diagnostics.equations import NotANumber
from peftc.expr import terms
from peftc.expr.equation import Initial
from peftc.expr.sizes import Size, show
from peftc.expr.spots import spot
from peftc.syntax import ast

if TYPE_CHECKING:
    from peftc.expr.numbers import Number
    from peftc.expr.scope import Scope

DISTRIBUTIONS = {
    "kaiming": ("kaiming(a)", 1),
    "glorot": ("glorot(gain)", 1),
    "normal": ("normal(std)", 1),
    "uniform": ("uniform(low, high)", 2),
    "orthogonal": ("orthogonal", 0),
    "signs": ("signs", 0),
    "permutation": ("permutation", 0),
    "embedded": ("embedded(knob)", 1),
    "places": ("places", 0),
    "saved": ("saved(knob) or saved(knob, kaiming(5))", 1),
}

KNOBS = {"embedded": "opening", "saved": "text"}
"""Distributions that begin with a knob, and its type."""

PLACES = ("permutation", "places")
"""Distributions that give whole numbers: places of elements."""


def distribution(
    random: ast.Random, axes: tuple[Size, ...] | None, scope: Scope, kind: str
) -> Initial:
    """A distribution, its numbers checked where they are known."""
    name = random.distribution
    if name not in DISTRIBUTIONS:
        hint = (
            suggestion(name, DISTRIBUTIONS) or f"there are {', '.join(DISTRIBUTIONS)}"
        )
        span = spot(random.span, name)
        raise fail(UnknownDistribution(span=span, name=name, hint=hint))
    form, count = DISTRIBUTIONS[name]
    if name == "embedded":
        return _embedded(random, axes, scope)
    if name == "saved":
        return _saved(random, axes, scope, kind)
    args = [_number(arg, scope) for arg in random.args]
    problem = _unfit(name, args, count, axes)
    if problem:
        raise fail(DistributionArguments(span=random.span, problem=problem, form=form))
    if name in PLACES and kind == "param":
        problem = f"places are not trained: `{name}` is for a `buffer`"
        raise fail(DistributionArguments(span=random.span, problem=problem, form=form))
    return Initial(name, tuple(0.0 if arg is None else float(arg) for arg in args))


def _embedded(
    random: ast.Random, axes: tuple[Size, ...] | None, scope: Scope
) -> Initial:
    """Rows of the table of embeddings, which a knob of the type `text` chooses."""
    (form, _), names = DISTRIBUTIONS["embedded"], [*random.args]
    known = [n.id for n in names if isinstance(n, ast.Name) and n.id in scope.words]
    scope.read |= set(known)
    problem = ""
    if len(known) != 1 or len(names) != 1:
        problem = "`embedded` takes one knob of the type `opening`"
    elif scope.kind != "input":
        problem = f"`embedded` reads the table of an input, this is `on {scope.kind}`"
    elif axes is not None and (len(axes) != 2 or axes[1] != Size.of("hidden")):
        problem = f"`embedded` gives [rows, hidden], this is {show(axes)}"
    if problem:
        raise fail(DistributionArguments(span=random.span, problem=problem, form=form))
    return Initial("embedded", (scope.words[known[0]] or "",))


def _saved(
    random: ast.Random, axes: tuple[Size, ...] | None, scope: Scope, kind: str
) -> Initial:
    """What adapters in folders hold; drawn where the text that names them is empty."""
    first, *rest = random.args or (None,)
    known = first.id if isinstance(first, ast.Name) else ""
    problem = ""
    if known not in scope.words or len(rest) > 1:
        problem = "`saved` takes one knob of the type `text`, then a distribution"
    elif rest and not isinstance(rest[0], ast.Call):
        problem = f"`{rest[0].span.text}` is no distribution"
    if problem:
        form = DISTRIBUTIONS["saved"][0]
        raise fail(DistributionArguments(span=random.span, problem=problem, form=form))
    scope.read.add(known)
    drawn = [distribution(_random(call), axes, scope, kind) for call in rest]
    said = scope.words[known]
    return drawn[0] if drawn and not said else Initial("saved", (f'"{said or ""}"',))


def _random(call: ast.Node) -> ast.Random:
    """A distribution inside another, whose arguments are checked where it is read."""
    assert isinstance(call, ast.Call)
    return ast.Random(call.head.span.text, call.args, span=call.span)  # type: ignore[arg-type]


def _number(expr: ast.Expr, scope: Scope) -> Number | None:
    value = terms.evaluate(expr, scope)
    if not value.constant:
        problem = "a distribution takes numbers made of knobs and sizes"
        raise fail(NotANumber(span=expr.span, problem=problem))
    return value.number


def _unfit(
    name: str, args: list[Number | None], count: int, axes: tuple[Size, ...] | None
) -> str:
    """Why a distribution does not fit, or the empty string; None is not known yet."""
    if len(args) != count:
        return f"`{name}` takes {count or 'no'} numbers, not {len(args)}"
    if axes is not None and name == "kaiming" and not axes:
        return "`kaiming` needs an axis to take its range from"
    if axes is not None and name == "orthogonal" and len(axes) != 2:
        return f"`orthogonal` fills matrices, this is {show(axes)}"
    if axes is not None and name in PLACES and not axes:
        return f"`{name}` needs an axis whose places it takes"
    if axes is not None and name == "glorot" and len(axes) < 2:
        return f"`glorot` needs two axes to take its range from, this is {show(axes)}"
    if None in args:
        return ""
    known = [float(arg) for arg in args if arg is not None]
    if name in ("kaiming", "glorot") and known[0] < 0:
        return f"the number of `{name}` is 0 or more"
    if name == "normal" and known[0] <= 0:
        return "a standard deviation is above 0"
    if name == "uniform" and known[0] >= known[1]:
        return f"from {known[0]} to {known[1]} there is nothing"
    return ""
