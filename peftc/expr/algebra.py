"""The operations of equations on values whose axes have names.

In: `Value`s.  Out: their sum, product, composition, ... as a `Value`, or a diagnostic
at the span of the operation.  The label of an axis is its position where operations see
it, and its index name where a binder around has bound it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from peftc.diagnostics.core import fail
from peftc.diagnostics.equations import (
    CannotApply,
    CannotLineUp,
    ComposeNeedsMatrices,
    InnerAxesDiffer,
    NeedsAxes,
)
from peftc.expr.ir import Node, add, apply_map, ein, literal
from peftc.expr.scope import Value
from peftc.expr.sizes import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.expr.sizes import Size
    from peftc.syntax.source import Span

Label: TypeAlias = int | str
ROW = -1  # a label beside the positions of a value


def indices_of(*values: Value) -> tuple[str, ...]:
    """The indices of several values, each once."""
    return tuple(dict.fromkeys(name for value in values for name in value.indices))


def positions(value: Value, start: int = 0) -> tuple[int, ...]:
    """Labels for the axes that operations see."""
    return tuple(range(start, start + len(value.axes)))


def contract(
    values: Sequence[Value], labels: Sequence[Sequence[Label]], out: Sequence[Label]
) -> Value:
    """The product of values, summed over labels that `out` lacks; indices stay."""
    indices = indices_of(*values)
    pairs = zip(values, labels, strict=True)
    full = [(*value.indices, *names) for value, names in pairs]
    return Value(ein([v.node for v in values], full, (*indices, *out)), indices)


# --- by name -----------------------------------------------------------------------


def line_up(span: Span, *values: Value) -> list[tuple[int, ...]]:
    """Labels that match the axes of all values with those of the largest.

    Raises:
        PeftcError: if an axis has no counterpart, or several.
    """
    largest = max(values, key=lambda value: len(value.axes))
    return [_matched(span, value, largest) for value in values]


def _matched(span: Span, value: Value, largest: Value) -> tuple[int, ...]:
    if value.axes == largest.axes:
        return positions(largest)
    labels: list[int] = []
    for axis in value.axes:
        places = [i for i, other in enumerate(largest.axes) if other == axis]
        if len(places) != 1 or places[0] in labels:
            raise fail(_misfit(span, value, largest, axis))
        labels += places
    return tuple(labels)


def _misfit(span: Span, value: Value, largest: Value, axis: Size) -> CannotLineUp:
    hint = "axes are matched by name; give one of them a knob of its own"
    if axis not in largest.axes:
        problem = f"the second has no axis `{axis}`"
        vectors = len(value.axes) == len(largest.axes) == 1
        hint = "`outer(a, b)` makes a matrix of two vectors" if vectors else ""
    else:
        which = "second" if largest.axes.count(axis) > 1 else "first"
        problem = f"the {which} has several axes `{axis}`"
    return CannotLineUp(
        span=span,
        small=show(value.axes),
        large=show(largest.axes),
        problem=problem,
        hint=hint,
    )


def spread(span: Span, *values: Value) -> tuple[list[Node], tuple[str, ...]]:
    """All values broadcast to their common axes, and their common indices."""
    labels = line_up(span, *values)
    indices = indices_of(*values)
    largest = max(values, key=lambda value: len(value.axes))
    out: tuple[Label, ...] = (*indices, *positions(largest))
    size: dict[Label, Size] = {}
    full: list[tuple[Label, ...]] = [
        (*v.indices, *names) for v, names in zip(values, labels, strict=True)
    ]
    for value, names in zip(values, full, strict=True):
        size |= dict(zip(names, value.node.axes, strict=True))
    nodes = []
    for value, names in zip(values, full, strict=True):
        missing = tuple(label for label in out if label not in names)
        ones = literal(1, [size[label] for label in missing])
        nodes.append(ein((value.node, ones), (names, missing), out))
    return nodes, indices


def total(span: Span, left: Value, right: Value, coef: float = 1) -> Value:
    """left + coef * right."""
    nodes, indices = spread(span, left, right)
    return Value(add(nodes, (1, coef)), indices)


def times(span: Span, left: Value, right: Value) -> Value:
    """The elementwise product."""
    largest = max(left, right, key=lambda value: len(value.axes))
    return contract((left, right), line_up(span, left, right), positions(largest))


def over(span: Span, left: Value, right: Value) -> Value:
    """The elementwise quotient."""
    inverse = Value(apply_map("recip", right.node), right.indices)
    return times(span, left, inverse)


def negative(value: Value) -> Value:
    """-value."""
    return Value(add((value.node,), (-1,)), value.indices)


# --- of matrices -------------------------------------------------------------------


def compose(span: Span, left: Value, right: Value) -> Value:
    """`left @ right`: of matrices, or of a matrix and a vector."""
    shapes = {"left": show(left.axes), "right": show(right.axes)}
    if len(left.axes) != 2 or len(right.axes) not in (1, 2):
        tokens = len(right.axes) > 2
        hint = "a matrix is applied to an activation by a call: `M(x)`"
        raise fail(
            ComposeNeedsMatrices(span=span, **shapes, hint=hint if tokens else "")
        )
    last, first = left.axes[1], right.axes[0]
    if last != first:
        turned = last == right.axes[-1] or first == left.axes[0]
        hint = "a `.T` is missing" if turned else ""
        inner = {"last": str(last), "first": str(first), "hint": hint}
        raise fail(InnerAxesDiffer(span=span, **shapes, **inner))
    if len(right.axes) == 1:
        return contract((left, right), ((0, 1), (1,)), (0,))
    return contract((left, right), ((0, 1), (1, 2)), (0, 2))


def apply(span: Span, matrix: Value, value: Value) -> Value:
    """`M(x)` along the last axis of x; a vector gives one number for each token."""
    fits = matrix.axes and value.axes and matrix.axes[-1] == value.axes[-1]
    if not fits or len(matrix.axes) > 2:
        raise fail(_cannot_apply(span, matrix, value))
    inner = positions(value)
    outer: tuple[Label, ...] = (ROW,) if len(matrix.axes) == 2 else ()
    out = (*inner[:-1], *outer)
    return contract((matrix, value), ((*outer, inner[-1]), inner), out)


def _cannot_apply(span: Span, matrix: Value, value: Value) -> CannotApply:
    turned = len(matrix.axes) == 2 and value.axes[-1:] == matrix.axes[:1]
    if not matrix.axes:
        hint = "a number is multiplied: `a * x`"
    elif len(matrix.axes) > 2:
        hint = "only matrices and vectors are applied"
    else:
        hint = "its transpose fits: write `.T` before the parentheses" if turned else ""
    return CannotApply(
        span=span, matrix=show(matrix.axes), value=show(value.axes), hint=hint
    )


def transpose(span: Span, value: Value) -> Value:
    """The last two axes exchanged."""
    if len(value.axes) < 2:
        raise fail(needs(span, "`.T`", "two axes", value))
    labels = positions(value)
    out = (*labels[:-2], labels[-1], labels[-2])
    return contract((value,), (labels,), out)


def needs(span: Span, operation: str, wanted: str, value: Value) -> NeedsAxes:
    """The diagnostic for an operand with the wrong number of axes."""
    hint = "an activation is not a matrix" if len(value.axes) > 2 else ""
    return NeedsAxes(
        span=span,
        operation=operation,
        wanted=wanted,
        axes=show(value.axes),
        hint=hint,
    )
