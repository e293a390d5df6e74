"""Rules that add rows: keys and values of an attention, tokens of an input.

In: what the right side of a rule was evaluated to.  Out: rows as a node of the axes
[b, t, rows, key], constant along those axes that the rule does not have; the position
as the leaf `start` and a number; rows of an input as [rows, hidden], and where they
stand as the call `places`.  Rules that are none of these are diagnostics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.attention import (
    InputRowsShape,
    PlaceNotTold,
    RowsShape,
    RowsUnpaired,
    StartNotShifted,
)
from peftc.diagnostics.core import fail
from peftc.diagnostics.equations import NotAtThisPlace
from peftc.expr.insertion import AUTO
from peftc.expr.ir import Call, Leaf, Literal, Node, add, call, ein, literal, walk
from peftc.expr.places import ATTENTION, INPUT, TOKEN_AXES
from peftc.expr.sizes import show
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.scope import Value
    from peftc.expr.sizes import Size
    from peftc.syntax.source import Span

START = ATTENTION["start"]

LEADS: tuple[tuple[Size, ...], ...] = ((), TOKEN_AXES[:1], TOKEN_AXES)
"""What may stand before the axis of rows: [rows, key], [b, rows, key], ..."""


def attention_rule(rule: ast.Rule, value: Value) -> Node:
    """The node of a rule of a clause at an attention.

    Raises:
        PeftcError: if it is no rows, or not `start` and a number.
    """
    node = _moved(rule, value) if rule.target == "start" else _rows(rule, value)
    for part in walk(node) if rule.target != "start" else ():
        if part is START:
            problem = "`start` is read by the rule for `start` only"
            raise fail(NotAtThisPlace(span=rule.value.span, problem=problem))
    return node


def _rows(rule: ast.Rule, value: Value) -> Node:
    """Rows as [b, t, rows, key]."""
    feature = ATTENTION[rule.target].axes[-1]
    *lead, last = value.axes[:-1] or (feature,)
    if value.axes[-1:] != (feature,) or len(value.axes) < 2 or tuple(lead) not in LEADS:
        raise fail(_misshapen(rule, value, feature))
    if last in TOKEN_AXES:
        raise fail(_misshapen(rule, value, feature))
    missing = TOKEN_AXES[len(lead) :]
    names = (*lead, "rows", "feature")
    labels = (*(str(axis) for axis in lead), *names[-2:])
    ones = literal(1, missing)
    extra = tuple(str(axis) for axis in missing)
    return ein((value.node, ones), (labels, extra), ("b", "t", "rows", "feature"))


def _misshapen(rule: ast.Rule, value: Value, feature: Size) -> RowsShape:
    turned = len(value.axes) == 2 and value.axes[0] == feature
    return RowsShape(
        span=rule.value.span,
        target=rule.target,
        wanted=f"[rows, {feature}], or [b, rows, {feature}] or [b, t, rows, {feature}]",
        axes=show(value.axes),
        hint="its transpose fits: `(...).T`" if turned else "",
    )


def _moved(rule: ast.Rule, value: Value) -> Node:
    """`start` and a number; the number may not be known yet."""
    if not value.axes:
        moved = add((value.node, START), (1, -1))
        parts = [part for part in walk(moved) if isinstance(part, Leaf)]
        if all(part.name == "#" for part in parts):
            if parts or _is_step(moved):
                return value.node
            assert isinstance(moved, Literal)
            found = f"; this adds {moved.value:g}"
            raise fail(StartNotShifted(span=rule.value.span, found=found))
    raise fail(StartNotShifted(span=rule.value.span))


def _is_step(moved: Node) -> bool:
    assert isinstance(moved, Literal)
    return moved.value >= 0 and moved.value.is_integer()


def steps(rule: Node) -> int:
    """By how much a rule for `start` moves the first position."""
    moved = add((rule, START), (1, -1))
    assert isinstance(moved, Literal)
    return int(moved.value)


def check_paired(rules: Mapping[str, Node], span: Span) -> None:
    """Refuse keys without values, and more of the one than of the other.

    Raises:
        PeftcError: PEFT274.
    """
    given = [name for name in ("k", "v") if name in rules]
    if len(given) == 1:
        (one,) = given
        other = "v" if one == "k" else "k"
        raise fail(RowsUnpaired(span=span, problem=f"`{one}'` without `{other}'`"))
    sizes = [rules[name].axes[-2] for name in given]
    if len(set(sizes)) > 1:
        problem = f"{sizes[0]} rows of keys, {sizes[1]} rows of values"
        raise fail(RowsUnpaired(span=span, problem=problem))


# --- rows of an input ----------------------------------------------------------


def input_rows(rule: ast.Rule, value: Value) -> Node:
    """Rows of an input, [rows, hidden].

    Raises:
        PeftcError: PEFT279.
    """
    feature = INPUT["rows"].axes[-1]
    if len(value.axes) == 2 and value.axes[1] == feature:
        return value.node
    turned = len(value.axes) == 2 and value.axes[0] == feature
    raise fail(
        InputRowsShape(
            span=rule.value.span,
            axes=show(value.axes),
            hint="its transpose fits: `(...).T`" if turned else "",
        )
    )


def input_place(rule: ast.Rule, told: Mapping[str, str | None]) -> Node:
    """Where rows of an input stand; `told` are the knobs that may say it.

    Raises:
        PeftcError: PEFT280.
    """
    if not isinstance(rule.value, ast.Name) or rule.value.id not in told:
        raise fail(PlaceNotTold(span=rule.value.span))
    text = told[rule.value.id] or AUTO
    return call("places", (INPUT["before"],), (text,), ())


def places_of(rules: Mapping[str, Node]) -> str:
    """Where the rows of an input stand, as text."""
    place = rules.get("before")
    return str(place.attrs[0]) if isinstance(place, Call) else AUTO
