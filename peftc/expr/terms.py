"""Expressions of equations to values: the dispatch over the syntax tree.

In: an expression and a `Scope`.  Out: its `Value`, with the span of every node it made
noted in the scope; or a `PeftcError` with all errors of the expression.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics, PeftcError, fail, suggestion
from peftc.diagnostics.equations import (
    BinderUnused,
    BranchesDiffer,
    IndexNotBound,
    IndexRange,
    NotANumber,
    UnknownFunction,
    WrappedMisused,
    WrongArguments,
)
from peftc.expr import algebra, numbers
from peftc.expr.binders import BINDERS, Bound, carrying
from peftc.expr.builtins import BUILTINS, Argument, At, Builtin
from peftc.expr.ir import Leaf, apply_map
from peftc.expr.places import TARGETS
from peftc.expr.scope import MAIN, TOKENS, Scope, Value, constant, silent
from peftc.expr.sizes import show
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.sizes import Size

FUNCTIONS = frozenset((*BUILTINS, *numbers.STATIC, *numbers.WORDS, "choose"))
"""Every name that is a function in equations."""


def evaluate(expr: ast.Expr | ast.Axes, scope: Scope) -> Value:
    """The value of an expression.

    Raises:
        PeftcError: with the errors of all its parts.
    """
    value = _evaluate(expr, scope)
    if value.node.operands:
        scope.origins.setdefault(value.node, expr.span)
    return value


def each(exprs: Sequence[ast.Expr | ast.Axes], scope: Scope) -> list[Value]:
    """The values of several expressions; the errors of all of them at once."""
    errors, values = Diagnostics(), []
    for expr in exprs:
        try:
            values.append(evaluate(expr, scope))
        except PeftcError as error:
            errors.absorb(error)
    _together(errors, len(values), len(exprs))
    return values


def _together(errors: Diagnostics, found: int, wanted: int) -> None:
    """Fail with all errors of some parts; silently if they were reported elsewhere."""
    errors.check()
    if found < wanted:
        raise silent()


def _evaluate(expr: ast.Expr | ast.Axes, scope: Scope) -> Value:
    match expr:
        case ast.Number():
            return constant(numbers.number(expr, {}))
        case ast.Name():
            return scope.variable(expr)
        case ast.Negate(operand):
            return _negated(evaluate(operand, scope))
        case ast.Binary():
            return _binary(expr, scope)
        case ast.Transpose(operand):
            return algebra.transpose(expr.span, evaluate(operand, scope))
        case ast.Call():
            return _call(expr, scope)
        case ast.Index():
            return _index(expr, scope)
        case ast.Binder():
            return _binder(expr, scope)
    problem = f"`{expr.span.text}` has no value in an equation"
    raise fail(NotANumber(span=expr.span, problem=problem))


def _negated(value: Value) -> Value:
    if value.constant:
        return constant(None if value.number is None else -value.number)
    return algebra.negative(value)


def _binary(expr: ast.Binary, scope: Scope) -> Value:
    left, right = each((expr.left, expr.right), scope)
    span = expr.span
    if expr.op == "@":
        return algebra.compose(span, left, right)
    if left.constant and right.constant:
        return constant(numbers.combine(expr, left.number, right.number))
    if expr.op == "*":
        return algebra.times(span, left, right)
    if expr.op == "/":
        return _quotient(expr, left, right)
    return algebra.total(span, left, right, 1 if expr.op == "+" else -1)


def _quotient(expr: ast.Binary, left: Value, right: Value) -> Value:
    if right.constant:
        right = constant(numbers.combine(expr, 1, right.number))
        return algebra.times(expr.span, left, right)
    return algebra.over(expr.span, left, right)


# --- calls -------------------------------------------------------------------------


def _call(expr: ast.Call, scope: Scope) -> Value:
    """A tensor applied, or a function: names of tensors come first."""
    name = expr.head.id if isinstance(expr.head, ast.Name) else ""
    if name in scope.wrapped:
        return _wrapped(expr, name, scope)
    if name in scope.functions:
        scope.read.add(name)
        word = scope.functions[name]
        return _elementwise(expr, "tanh" if word is None else word, scope)
    if not name or name in scope.tensors or name in scope.site:
        return _applied(expr, scope)
    if name == "choose":
        return _choose(expr, scope)
    if name in BUILTINS:
        return _builtin(expr, BUILTINS[name], scope)
    if name in numbers.STATIC or name in numbers.WORDS:
        return _function(expr, name, scope)
    if name in scope.numbers:
        return _applied(expr, scope)
    hint = suggestion(name, (*FUNCTIONS, *scope.tensors, *scope.functions))
    raise fail(UnknownFunction(span=expr.head.span, name=name, hint=hint))


def _applied(expr: ast.Call, scope: Scope) -> Value:
    if len(expr.args) != 1:
        problem = f"a tensor is applied to one value, not {len(expr.args)}"
        raise fail(WrongArguments(span=expr.span, problem=problem, form="M(x)"))
    matrix, value = each((expr.head, expr.args[0]), scope)
    return algebra.apply(expr.span, matrix, value)


def _function(expr: ast.Call, name: str, scope: Scope) -> Value:
    """A function of numbers if all arguments are, else of the elements of a tensor."""
    static = numbers.STATIC.get(name)
    if static is None:
        return _elementwise(expr, name, scope)
    numbers.check_count(expr, static)
    values = each(expr.args, scope)
    if all(value.constant for value in values):
        return constant(numbers.call(expr, static, [v.number for v in values]))
    if name in numbers.WORDS:
        return Value(apply_map(name, values[0].node), values[0].indices)
    where = next(a for a, v in zip(expr.args, values, strict=True) if not v.constant)
    problem = f"`{name}` takes numbers; this is a tensor"
    raise fail(NotANumber(span=where.span, problem=problem))


def _elementwise(expr: ast.Call, word: str, scope: Scope) -> Value:
    if len(expr.args) != 1:
        problem = f"a function of one number has one argument, not {len(expr.args)}"
        name = expr.head.span.text
        raise fail(WrongArguments(span=expr.span, problem=problem, form=f"{name}(x)"))
    value = evaluate(expr.args[0], scope)
    return Value(apply_map(word, value.node), value.indices)


def _wrapped(expr: ast.Call, name: str, scope: Scope) -> Value:
    """What a wrapped method makes of a value that it rewrites."""
    scope.read.add(name)
    main = MAIN[scope.kind]
    argument = expr.args[0] if len(expr.args) == 1 else None
    node = scope.site.get(argument.id) if isinstance(argument, ast.Name) else None
    allowed = (main,) if scope.kind == "linear" else TARGETS[scope.kind]
    if not isinstance(node, Leaf) or node.name not in allowed:
        problem = f"`{name}` takes the value that this place rewrites"
        text = {"problem": problem, "knob": name, "example": main}
        raise fail(WrappedMisused(span=expr.span, **text))
    return Value(scope.wrapped[name](node))


# --- functions with a form of their own --------------------------------------------


def _builtin(expr: ast.Call, function: Builtin, scope: Scope) -> Value:
    kinds = function.kinds
    if kinds[-1] == "...":
        kinds = (*kinds[:-2], *kinds[-2:-1] * (len(expr.args) - len(kinds) + 2))
    if len(expr.args) != len(kinds) or not expr.args:
        problem = f"`{function.name}` takes {len(kinds) or 1}, not {len(expr.args)}"
        form = function.form
        raise fail(WrongArguments(span=expr.span, problem=problem, form=form))
    errors, values = Diagnostics(), list[Argument]()
    for kind, argument in zip(kinds, expr.args, strict=True):
        try:
            values.append(_argument(kind, argument, function, scope))
        except PeftcError as error:
            errors.absorb(error)
    _together(errors, len(values), len(kinds))
    return function.apply(At(expr, scope, function.form), *values)


def _argument(
    kind: str, expr: ast.Expr | ast.Axes, function: Builtin, scope: Scope
) -> Argument:
    """An argument, read as the form of the function says."""
    if kind == "[]":
        return _axes(expr, function, scope)
    if kind in ("axis", "n"):
        return scope.size(expr, tokens=kind == "axis")
    value = evaluate(expr, scope)
    if kind == "p":
        return _known(value, expr)
    wanted = {"v": "a vector", "M": "a matrix", "Q": "a square matrix"}.get(kind)
    axes = value.axes
    square = kind != "Q" or axes[:1] == axes[1:]
    if wanted and (len(axes) != (1 if kind == "v" else 2) or not square):
        raise fail(algebra.needs(expr.span, f"`{function.name}`", wanted, value))
    return value


def _axes(
    expr: ast.Expr | ast.Axes, function: Builtin, scope: Scope
) -> tuple[Size, ...]:
    if not isinstance(expr, ast.Axes):
        problem = "axes in brackets are wanted here"
        form = function.form
        raise fail(WrongArguments(span=expr.span, problem=problem, form=form))
    return tuple(scope.size(size) for size in expr.sizes)


def _known(value: Value, expr: ast.Expr | ast.Axes) -> numbers.Number | None:
    if not value.constant:
        problem = "this is known only when the model runs"
        hint = "a number made of knobs and sizes is wanted"
        raise fail(NotANumber(span=expr.span, problem=problem, hint=hint))
    return value.number


def _choose(expr: ast.Call, scope: Scope) -> Value:
    """One of two values; while a definition is checked, both are evaluated."""
    if len(expr.args) != 3:
        problem = f"`choose` takes 3, not {len(expr.args)}"
        form = "choose(flag, a, b)"
        raise fail(WrongArguments(span=expr.span, problem=problem, form=form))
    condition, *branches = expr.args
    chosen = _condition(condition, scope)
    if chosen is not None:
        return evaluate(branches[0 if chosen else 1], scope)
    a, b = each(branches, scope)
    if a.axes != b.axes:
        shapes = {"first": show(a.axes), "second": show(b.axes)}
        raise fail(BranchesDiffer(span=expr.span, **shapes))
    if a.constant and b.constant:
        return constant(None)
    (left, _), indices = algebra.spread(expr.span, a, b)
    return Value(left, indices)


def _condition(expr: ast.Expr | ast.Axes, scope: Scope) -> bool | None:
    """Whether it holds; None while that is not known."""
    if isinstance(expr, ast.Is):
        scope.read.add(expr.name.id)
        known = scope.words.get(expr.name.id)  # of a checked method, a choice
        return None if known is None else known == expr.word
    if isinstance(expr, ast.Name):
        scope.read.add(expr.id)
        if expr.id in scope.flags:
            return scope.flags[expr.id]
        if expr.id in numbers.TRUTH:
            return numbers.TRUTH[expr.id]
    problem = f"`{expr.span.text}` is no flag"
    hint = "the first argument of `choose` is a flag, or `knob is word`"
    raise fail(NotANumber(span=expr.span, problem=problem, hint=hint))


# --- indices -----------------------------------------------------------------------


def _index(expr: ast.Index, scope: Scope) -> Value:
    """`P[k]`: the first axes become indices."""
    value = evaluate(expr.operand, scope)
    errors = Diagnostics()
    for index in expr.indices:
        if index.id not in scope.bound:
            hint = suggestion(index.id, scope.bound) or "`sum[k: n](...)` binds `k`"
            errors.add(IndexNotBound(span=index.span, name=index.id, hint=hint))
    errors.check()
    if len(expr.indices) > len(value.axes):
        problem = f"{len(expr.indices)} indices for {show(value.axes)}"
        raise fail(IndexRange(span=expr.span, problem=problem))
    for index, axis in zip(expr.indices, value.axes, strict=False):
        extent = scope.bound[index.id]
        if extent != axis:
            problem = f"`{index.id}` runs over `{extent}`, the axis is `{axis}`"
            raise fail(IndexRange(span=index.span, problem=problem))
        scope.read.add(index.id)
    names = tuple(index.id for index in expr.indices)
    if len({*names, *value.indices}) < len(names) + len(value.indices):
        problem = "one index stands for two axes"
        raise fail(IndexRange(span=expr.span, problem=problem))
    return Value(value.node, (*value.indices, *names))


def _binder(expr: ast.Binder, scope: Scope) -> Value:
    if expr.kind not in BINDERS:
        hint = "write the product out: `A @ B`" if expr.kind == "prod" else ""
        name = f"{expr.kind}[...]"
        raise fail(UnknownFunction(span=expr.span, name=name, hint=hint))
    count = 2 if expr.kind == "blockgrid" else 1
    if len(expr.ranges) != count:
        problem = f"`{expr.kind}` binds {count}, not {len(expr.ranges)}"
        form = f"{expr.kind}[{', '.join(('i: m', 'j: n')[:count])}](...)"
        raise fail(WrongArguments(span=expr.span, problem=problem, form=form))
    ranges = _ranges(expr, scope)
    value = carrying(_body(expr, ranges, scope), ranges)
    return BINDERS[expr.kind](Bound(expr, scope, value, tuple(ranges.values())))


def _ranges(expr: ast.Binder, scope: Scope) -> dict[str, Size]:
    taken = {*scope.bound, *scope.variables(), *scope.knobs, *TOKENS, *scope.sizes}
    errors, found = Diagnostics(), {}
    for name, extent in expr.ranges:
        if name in taken or name in found:
            problem = f"`{name}` has a meaning already; choose another index"
            errors.add(BinderUnused(span=expr.span, problem=problem))
        try:
            found[name] = scope.size(extent)
        except PeftcError as error:
            errors.absorb(error)
    _together(errors, len(found), len(expr.ranges))
    return found


def _body(expr: ast.Binder, ranges: Mapping[str, Size], scope: Scope) -> Value:
    """The body, its indices bound while it is read; each must be used."""
    outside, scope.read = scope.read, set()
    scope.bound |= ranges
    try:
        value = evaluate(expr.body, scope)
        unused = [name for name in ranges if name not in scope.read]
    finally:
        for name in ranges:
            del scope.bound[name]
        scope.read = outside | (scope.read - set(ranges))
    if unused and expr.kind in ("sum", "mean"):  # blocks may well be equal
        problem = f"nothing inside is indexed by `{unused[0]}`"
        raise fail(BinderUnused(span=expr.span, problem=problem))
    return value
