"""The functions of equations that are more than one number to one number.

In: arguments that `peftc.expr.terms` has read according to the function's kinds.
Out: a `Value`.  Kinds of arguments: `A` any tensor, `M` a matrix, `Q` a square one, `v`
a vector, `p` a number known beforehand, `n` a size, `axis` an axis of the first
argument, `[]` axes in brackets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from peftc.diagnostics.core import fail
from peftc.diagnostics.equations import (
    NoSuchAxis,
    NotANumber,
    ReshapeChangesCount,
    WrongArguments,
)
from peftc.expr.algebra import contract, indices_of, needs, positions
from peftc.expr.binders import one_over, scaled
from peftc.expr.ir import Node, add, apply_map, call, ein, eye, literal, view
from peftc.expr.scope import Scope, Value
from peftc.expr.sizes import Size, product, show

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.expr.numbers import Number
    from peftc.syntax import ast

Axes: TypeAlias = tuple[Size, ...]
Argument: TypeAlias = "Value | Size | Axes | Number | None"
BUILTINS: dict[str, Builtin] = {}


@dataclass(frozen=True)
class At:
    """Where a function is called."""

    expr: ast.Call
    scope: Scope
    form: str

    def misused(self, problem: str) -> WrongArguments:
        """The diagnostic for arguments that do not fit together."""
        return WrongArguments(span=self.expr.span, problem=problem, form=self.form)


@dataclass(frozen=True)
class Builtin:
    """A function, its form for people, and what each of its arguments is.

    A last kind `...` stands for any number of what is before it.
    """

    form: str
    kinds: tuple[str, ...]
    apply: Callable[..., Value]

    @property
    def name(self) -> str:
        """The name before the parentheses."""
        return self.form.partition("(")[0]


def _builtin(
    form: str, *kinds: str
) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    def register(apply: Callable[..., Value]) -> Callable[..., Value]:
        entry = Builtin(form, kinds, apply)
        BUILTINS[entry.name] = entry
        return apply

    return register


# --- structure ---------------------------------------------------------------------


@_builtin("kron(A, B)", "M", "M")
def _kron(at: At, a: Value, b: Value) -> Value:
    blocks = contract((a, b), ((0, 1), (2, 3)), (0, 2, 1, 3))
    rows, columns = (x * y for x, y in zip(a.axes, b.axes, strict=True))
    return _viewed(blocks, (rows, columns))


@_builtin("diag(v)", "v")
def _diag(at: At, vector: Value) -> Value:
    one = Value(eye(vector.axes[0]))
    return contract((vector, one), ((0,), (0, 1)), (0, 1))


@_builtin("eye(n)", "n")
def _eye(at: At, size: Size) -> Value:
    return Value(eye(size))


@_builtin("outer(a, b)", "A", "A")
def _outer(at: At, a: Value, b: Value) -> Value:
    left, right = positions(a), positions(b, start=len(a.axes))
    return contract((a, b), (left, right), (*left, *right))


@_builtin("reshape(A, [out, in])", "A", "[]")
def _reshape(at: At, value: Value, axes: Axes) -> Value:
    if product(value.axes) != product(axes):
        shapes = {"before": show(value.axes), "after": show(axes)}
        raise fail(ReshapeChangesCount(span=at.expr.span, **shapes))
    return _viewed(value, axes)


def _viewed(value: Value, axes: Axes) -> Value:
    leading = value.node.axes[: len(value.indices)]
    return Value(view(value.node, (*leading, *axes)), value.indices)


# --- reductions --------------------------------------------------------------------


def _reduced(
    at: At, value: Value, axes: tuple[Size, ...], power: int = 1
) -> tuple[Value, Axes]:
    """The sum of a power over the named axes, or all; and the axes summed over."""
    labels = positions(value)
    named = {_position(at, value, i, axis) for i, axis in enumerate(axes, 1)}
    gone = named or set(labels)
    kept = tuple(label for label in labels if label not in gone)
    result = contract((value,) * power, (labels,) * power, kept)
    return result, tuple(value.axes[label] for label in sorted(gone))


def _position(at: At, value: Value, argument: int, axis: Size) -> int:
    places = [i for i, other in enumerate(value.axes) if other == axis]
    if len(places) == 1:
        return places[0]
    why = "several axes" if places else "no axis"
    text = {"axes": show(value.axes), "why": why, "axis": str(axis)}
    raise fail(NoSuchAxis(span=at.expr.args[argument].span, **text))


@_builtin("sum(A, axis, ...)", "A", "axis", "...")
def _sum(at: At, value: Value, *axes: Size) -> Value:
    return _reduced(at, value, axes)[0]


@_builtin("mean(A, axis, ...)", "A", "axis", "...")
def _mean(at: At, value: Value, *axes: Size) -> Value:
    total, over = _reduced(at, value, axes)
    return Value(scaled(total.node, one_over(over, at.scope)), total.indices)


@_builtin("norm(A, axis, ...)", "A", "axis", "...")
def _norm(at: At, value: Value, *axes: Size) -> Value:
    total, _ = _reduced(at, value, axes, power=2)
    return Value(apply_map("sqrt", total.node), total.indices)


@_builtin("norm2(A, axis, ...)", "A", "axis", "...")
def _norm2(at: At, value: Value, *axes: Size) -> Value:
    return _reduced(at, value, axes, power=2)[0]


# --- what only training sees -------------------------------------------------------


@_builtin("drop(x, p)", "A", "p")
def _drop(at: At, value: Value, number: Number | None) -> Value:
    probability = 0.5 if number is None else float(number)
    if not 0 <= probability < 1:
        problem = f"a probability lies from 0 to below 1, this is {probability}"
        raise fail(NotANumber(span=at.expr.args[1].span, problem=problem))
    return _opaque("drop", (value,), (probability,)) if probability else value


@_builtin("detach(A)", "A")
def _detach(at: At, value: Value) -> Value:
    return _opaque("detach", (value,))


@_builtin("training(a, b)", "A", "A")
def _training(at: At, first: Value, second: Value) -> Value:
    _outside(at, first, second)
    axes = first.axes or second.axes
    first, second = (_spread(value, axes) for value in (first, second))
    if first.axes != second.axes:
        shapes = f"{show(first.axes)} in training and {show(second.axes)} otherwise"
        raise fail(at.misused(f"the axes differ: {shapes}"))
    return _opaque("training", (first, second))


def _spread(value: Value, axes: Axes) -> Value:
    """One number for every element of some axes; anything else as it is."""
    if value.axes or not axes:
        return value
    labels = tuple(range(len(axes)))
    return Value(ein((value.node, literal(1, axes)), ((), labels), labels))


# --- opaque functions --------------------------------------------------------------


def _opaque(
    name: str, values: tuple[Value, ...], attrs: tuple[float | int, ...] = ()
) -> Value:
    first = values[0]
    nodes = [value.node for value in values]
    return Value(call(name, nodes, attrs, first.node.axes), first.indices)


@_builtin("solve(A, B)", "Q", "M")
def _solve(at: At, a: Value, b: Value) -> Value:
    """A^-1 B."""
    if a.axes[0] != b.axes[0]:
        wanted = f"a matrix of `{a.axes[0]}` rows"
        raise fail(needs(at.expr.args[1].span, "`solve`", wanted, b))
    indices = indices_of(a, b)
    return _solved(_carried(a, b, indices), _carried(b, a, indices), indices)


def _carried(value: Value, other: Value, indices: tuple[str, ...]) -> Node:
    """The node with all of some indices, those it lacks taken from the other value."""
    size = dict(zip(other.indices, other.node.axes, strict=False))
    missing = tuple(name for name in indices if name not in value.indices)
    ones = literal(1, [size[name] for name in missing])
    labels = (*value.indices, 0, 1)
    return ein((value.node, ones), (labels, missing), (*indices, 0, 1))


def _solved(a: Node, b: Node, indices: tuple[str, ...]) -> Value:
    return Value(call("solve", (a, b), (), b.axes), indices)


@_builtin("cayley(Q)", "Q")
def _cayley(at: At, q: Value) -> Value:
    """(I + S)^-1 (I - S), orthogonal, with S = (Q - Q.T) / 2."""
    turned = contract((q,), ((0, 1),), (1, 0))
    skew = add((q.node, turned.node), (0.5, -0.5))
    one = _carried(Value(eye(q.axes[0])), q, q.indices)
    return _solved(add((one, skew)), add((one, skew), (1, -1)), q.indices)


@_builtin("ifft2(A)", "M")
def _ifft2(at: At, value: Value) -> Value:
    return _opaque("ifft2", (value,))


@_builtin("fwht(v)", "v")
def _fwht(at: At, value: Value) -> Value:
    return _opaque("fwht", (value,))


@_builtin("fit(v, n)", "v", "n")
def _fit(at: At, value: Value, size: Size) -> Value:
    """The first n elements; zeros behind those that are there."""
    if size == value.axes[0]:
        return value
    axes = (*value.node.axes[:-1], size)
    return Value(call("fit", (value.node,), (), axes), value.indices)


@_builtin("permute(v, places)", "v", "v")
def _permute(at: At, value: Value, places: Value) -> Value:
    """v[places[i]] for each i, for every index of binders around."""
    if value.axes != places.axes:
        problem = f"{show(value.axes)} elements for {show(places.axes)} places"
        raise fail(at.misused(problem))
    indices = indices_of(value, places)
    sizes = dict(zip(value.indices, value.node.axes, strict=False))
    sizes |= zip(places.indices, places.node.axes, strict=False)
    nodes = [_under(one, indices, sizes) for one in (value, places)]
    return Value(call("permute", nodes, (), nodes[0].axes), indices)


def _under(value: Value, indices: tuple[str, ...], sizes: Mapping[str, Size]) -> Node:
    """The node of a vector with all of some indices, in their order."""
    missing = tuple(name for name in indices if name not in value.indices)
    if not missing and value.indices == indices:
        return value.node
    ones = literal(1, [sizes[name] for name in missing])
    return ein((value.node, ones), ((*value.indices, 0), missing), (*indices, 0))


@_builtin("bilstm(E, A, R, a, r)", "M", "A", "A", "A", "A")
def _bilstm(at: At, steps: Value, *weights: Value) -> Value:
    """The states [p, 2 * h] of two recurrent cells of width h along the rows of E,
    one forwards and one backwards: A[2, 4 * h, n] and a[2, 4 * h] for what is read,
    R[2, 4 * h, h] and r[2, 4 * h] for the last state."""
    _outside(at, steps, *weights)
    count, inside = steps.axes
    width = weights[1].axes[-1] if len(weights[1].axes) == 3 else Size.of(1)
    two, gates = Size.of(2), Size.of(4) * width
    wanted = ((two, gates, inside), (two, gates, width), (two, gates), (two, gates))
    for value, axes, name in zip(weights, wanted, "ARar", strict=True):
        if value.axes != axes:
            problem = f"`{name}` is {show(axes)}, this is {show(value.axes)}"
            raise fail(at.misused(problem))
    nodes = [value.node for value in (steps, *weights)]
    return Value(call("bilstm", nodes, (), (count, two * width)))


def _outside(at: At, *values: Value) -> None:
    """Refuse values under a binder."""
    if indices_of(*values):
        raise fail(at.misused(f"`{at.expr.head.span.text}` stands outside of binders"))


@_builtin("scatter(v, places, [out, in])", "A", "A", "[]")
def _scatter(at: At, value: Value, places: Value, axes: Axes) -> Value:
    _outside(at, value, places)
    if value.axes != places.axes:
        problem = f"{show(value.axes)} values for {show(places.axes)} places"
        raise fail(at.misused(problem))
    return Value(call("scatter", (value.node, places.node), (), axes))


@_builtin("gather(A, places)", "A", "A")
def _gather(at: At, value: Value, places: Value) -> Value:
    _outside(at, value, places)
    return Value(call("gather", (value.node, places.node), (), places.axes))


@_builtin("topmask(A, k)", "A", "p")
def _topmask(at: At, value: Value, number: Number | None) -> Value:
    _outside(at, value)
    if number is not None and (number != int(number) or number < 1):
        problem = f"a whole number, 1 or more, is wanted; this is {number}"
        raise fail(NotANumber(span=at.expr.args[1].span, problem=problem))
    return _opaque("topmask", (value,), (1 if number is None else int(number),))
