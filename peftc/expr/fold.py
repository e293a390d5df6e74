"""What of a clause can be computed once and for all: its closed parts.

In: a clause of a checked method, and the knobs and sizes of one application.  Out: the
clause with each part that depends on trained tensors alone replaced by one tensor, and
those parts.  A part is as large as it can be; dropout stays where it is, and so does
what reads a value of the site, the base's weights, a buffer or a wrapped method.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from peftc.expr.elaborate import values_of
from peftc.expr.places import PLACES
from peftc.expr.scope import kind_of
from peftc.expr.uses import names_in
from peftc.syntax import ast
from peftc.syntax.parse import parse_expr
from peftc.syntax.walk import parts_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.expr.ir import Node
    from peftc.expr.sizes import Size

    Knobs = Mapping[str, int | float | str | bool]


@dataclass(frozen=True)
class Folded:
    """A clause after folding.

    `parts` says what each new tensor holds, in terms of the names of `before`: the
    tensors and the closed local names of the clause as it was.
    """

    clause: ast.Clause
    before: ast.Clause
    parts: Mapping[str, ast.Expr]

    def nodes(
        self, knobs: Knobs, sizes: Mapping[str, int], prefix: str = ""
    ) -> list[Node]:
        """What the new tensors hold, over the old ones."""
        parts = list(self.parts.values())
        return values_of(self.before, parts, knobs, sizes, prefix)


def fold_clause(
    method: ast.Method, clause: ast.Clause, knobs: Knobs, sizes: Mapping[str, int]
) -> Folded | None:
    """Fold all that is closed in a clause, or None if nothing is."""
    if any(isinstance(s, ast.Store) for s in clause.body):
        return None
    body = (s for s in clause.body if not isinstance(s, ast.Loss | ast.Train))
    clause = replace(clause, body=tuple(map(_running, body)))
    work = _Folding(method, clause)
    folded = tuple(work.statements())
    if not work.parts:
        return None
    made = Folded(clause, replace(clause, body=work.before()), work.parts)
    tensors = tuple(
        ast.Tensor(name, tuple(map(_size, node.axes)), span=clause.span)
        for name, node in zip(work.parts, made.nodes(knobs, sizes), strict=True)
    )
    new = ast.Declare("param", tensors, span=clause.span)
    return replace(made, clause=replace(clause, body=(new, *_read(folded))))


def _running(part: Any) -> Any:
    """A statement as it is outside training: of `training(a, b)` the second."""
    if isinstance(part, tuple):
        return tuple(map(_running, part))
    if not isinstance(part, ast.Node):
        return part
    if isinstance(part, ast.Call) and getattr(part.head, "id", "") == "training":
        return _running(part.args[1])
    return replace(part, **{n: _running(getattr(part, n)) for n in parts_of(part)})


def _size(axis: Size) -> ast.Expr:
    return parse_expr(str(axis))


def _read(body: tuple[ast.Statement, ...]) -> Iterator[ast.Statement]:
    """The statements, without tensors that nothing reads any more."""
    values = (s.value for s in body if isinstance(s, ast.Define | ast.Rule | ast.Loss))
    used = frozenset[str]().union(*map(names_in, values))
    for statement in body:
        if not isinstance(statement, ast.Declare):
            yield statement
            continue
        tensors = tuple(t for t in statement.tensors if t.name in used)
        if tensors:
            yield replace(statement, tensors=tensors)


@dataclass
class _Folding:
    """The walk over a clause: names that are open, and parts that were closed."""

    method: ast.Method
    clause: ast.Clause
    parts: dict[str, ast.Expr] = field(default_factory=dict)
    closed: dict[str, ast.Expr] = field(default_factory=dict)
    """Local names with closed values."""

    def __post_init__(self) -> None:
        kind = kind_of(self.clause.place)
        assert kind is not None
        wrapped = (p.name for p in self.method.params if p.type == "method")
        declares = [s for s in self.clause.body if isinstance(s, ast.Declare)]
        self.tensors = {t.name for s in declares for t in s.tensors}
        fixed = {t.name for s in declares if s.kind == "buffer" for t in s.tensors}
        if kind == "input":  # its rows are the same for all that is read
            fixed = set()
        self.open = {*PLACES[kind], *wrapped, *fixed, "drop"}

    def statements(self) -> Iterator[ast.Statement]:
        """The statements, closed parts replaced and closed local names left out."""
        for statement in self.clause.body:
            if not isinstance(statement, ast.Define | ast.Rule | ast.Loss):
                yield statement
                continue
            value, name = statement.value, getattr(statement, "name", "")
            if name and self._is_closed(value):
                self.closed[name] = value
                continue
            self.open |= {name} if name else set()
            label = name or getattr(statement, "target", "")
            yield replace(statement, value=self._folded(value, label))

    def before(self) -> tuple[ast.Statement, ...]:
        """The statements that parts may read."""
        return tuple(
            s
            for s in self.clause.body
            if isinstance(s, ast.Declare)
            or (isinstance(s, ast.Define) and s.name in self.closed)
        )

    def _is_closed(self, expr: ast.Expr) -> bool:
        read = names_in(expr)
        return not read & self.open and bool(read & {*self.tensors, *self.closed})

    def _folded(self, expr: Any, label: str) -> Any:
        """An open expression with its closed parts replaced."""
        if isinstance(expr, ast.Name):
            return self._named(expr)
        if isinstance(expr, ast.Axes | ast.Binder | ast.Index):
            return expr  # parts in here may be indexed
        if self._is_closed(expr):
            return self._part(expr, label)
        changed = {
            f.name: self._inner(getattr(expr, f.name), label)
            for f in fields(expr)
            if f.name != "span"
        }
        return replace(expr, **changed)

    def _inner(self, part: Any, label: str) -> Any:
        if isinstance(part, tuple):
            return tuple(self._inner(one, label) for one in part)
        return self._folded(part, label) if is_dataclass(part) else part

    def _named(self, expr: ast.Name) -> ast.Name:
        if expr.id in self.closed:
            self.parts.setdefault(expr.id, self.closed[expr.id])
        return expr

    def _part(self, expr: ast.Expr, label: str) -> ast.Name:
        """A tensor for a part: an equal one, or a new one named after its statement."""
        for name, known in self.parts.items():
            if known == expr:
                return ast.Name(name, span=expr.span)
        name, number = f"{label}_folded", 1
        while name in {*self.parts, *self.tensors, *self._names()}:
            number += 1
            name = f"{label}_folded{number}"
        self.parts[name] = expr
        return ast.Name(name, span=expr.span)

    def _names(self) -> set[str]:
        knobs = {p.name for p in self.method.params}
        return {s.name for s in self.clause.body if isinstance(s, ast.Define)} | knobs
