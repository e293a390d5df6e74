"""Where a method definition uses its names: as sizes, as flags, as functions, at all.

In: the syntax tree of a method.  Out: sets of names, from which the types of knobs are
inferred and knobs without a use are found.  Nothing is checked here.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING

from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.syntax.ast import Expr

REDUCTIONS = ("sum", "mean", "norm", "norm2")
"""Functions whose arguments after the first are axes."""


def names_in(expr: Expr | ast.Axes) -> frozenset[str]:
    """Every name that an expression reads, indices of its own binders left out."""
    match expr:
        case ast.Name(name):
            return frozenset((name,))
        case ast.Index(operand, indices):
            return names_in(operand) | {index.id for index in indices}
        case ast.Binder(_, ranges, body):
            bound = {name for name, _ in ranges}
            used = (names_in(size) for _, size in ranges)
            return frozenset().union(names_in(body) - bound, *used)
    return frozenset().union(*map(names_in, children(expr)))


def children(expr: Expr | ast.Axes) -> tuple[Expr | ast.Axes, ...]:
    """The expressions directly inside an expression."""
    match expr:
        case ast.Negate(operand) | ast.Transpose(operand) | ast.Is(operand):
            return (operand,)
        case ast.Binary(_, left, right):
            return (left, right)
        case ast.Call(head, args):
            return (head, *args)
        case ast.Axes(sizes):
            return sizes
        case ast.Index(operand, indices):
            return (operand, *indices)
        case ast.Binder(_, ranges, body):
            return (*(size for _, size in ranges), body)
    return ()


def inside(expr: Expr | ast.Axes) -> Iterator[Expr | ast.Axes]:
    """An expression and everything in it."""
    yield expr
    for child in children(expr):
        yield from inside(child)


def expressions(clause: ast.Clause) -> Iterator[Expr | ast.Axes]:
    """The outermost expressions of a clause, axes of tensors among them."""
    for statement in clause.body:
        if isinstance(statement, ast.Declare):
            yield from chain.from_iterable(map(_of_tensor, statement.tensors))
        elif isinstance(statement, ast.Train | ast.Network):
            yield from (arg.value for arg in statement.args)  # type: ignore[misc]
        elif isinstance(statement, ast.Store):
            yield from statement.value.args
        else:
            yield statement.value


def _of_tensor(tensor: ast.Tensor) -> Iterator[Expr | ast.Axes]:
    yield ast.Axes(tensor.axes, span=tensor.span)
    if isinstance(tensor.init, ast.Random):
        yield from tensor.init.args
    elif tensor.init is not None:
        yield tensor.init


def _everything(method: ast.Method) -> Iterator[Expr | ast.Axes]:
    for clause in method.clauses:
        for expr in expressions(clause):
            yield from inside(expr)


@lru_cache(maxsize=256)
def body_names(method: ast.Method) -> frozenset[str]:
    """All names that the clauses read, their guards included."""
    asked = (test.name for clause in method.clauses for test in tests(clause))
    read = (names_in(e) for clause in method.clauses for e in expressions(clause))
    return frozenset(asked).union(*read)


def tests(clause: ast.Clause) -> Iterator[ast.Test]:
    """All that a guard asks."""
    return chain.from_iterable(clause.guard)


def sure_names(clause: ast.Clause) -> frozenset[str]:
    """The knobs and facts that hold wherever a guard does."""
    told = [{t.name for t in every if not t.word} for every in clause.guard]
    return frozenset(set.intersection(*told) if told else ())


def size_names(method: ast.Method) -> frozenset[str]:
    """Names that stand where a size is meant."""
    found = (names_in(size) for e in _everything(method) for size in _sizes(e))
    return frozenset().union(*found)


def _sizes(expr: Expr | ast.Axes) -> tuple[Expr | ast.Axes, ...]:
    match expr:
        case ast.Axes(sizes):
            return sizes
        case ast.Binder(_, ranges):
            return tuple(size for _, size in ranges)
        case ast.Call(ast.Name("eye"), args):
            return args
        case ast.Call(ast.Name(name), (_, *axes)) if name in (*REDUCTIONS, "fit"):
            return tuple(axes)
    return ()


def flag_names(method: ast.Method) -> frozenset[str]:
    """Names that decide something: in `where`, or first in a `choose`."""
    every = chain.from_iterable(map(tests, method.clauses))
    guards = (test.name for test in every if not test.word)
    chosen = (
        e.args[0].id
        for e in _everything(method)
        if isinstance(e, ast.Call)
        and e.head == ast.Name("choose", span=e.span)
        and e.args
        and isinstance(e.args[0], ast.Name)
    )
    return frozenset((*guards, *chosen))


def head_names(method: ast.Method) -> frozenset[str]:
    """Names that are called: functions, tensors and wrapped methods."""
    return frozenset(
        e.head.id
        for e in _everything(method)
        if isinstance(e, ast.Call) and isinstance(e.head, ast.Name)
    )
