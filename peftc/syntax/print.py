"""From a syntax tree to its one canonical text: the formatter.

In: a tree whose nodes may carry comments.  Out: text that parses to an equal tree and
that printing leaves as it is; at most 88 columns where breaking lines can do it; only
the parentheses that precedence asks for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from peftc.syntax import ast
from peftc.syntax.layout import (
    HARD,
    SPACE,
    Aside,
    Doc,
    Group,
    Nest,
    join,
    lay_out,
    listed,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH = 88

SUM, TERM, FACTOR, PRODUCT, POSTFIX = range(1, 6)
LEVELS = {"+": SUM, "-": SUM, "*": TERM, "/": TERM, "@": PRODUCT}


def format_file(file: ast.File) -> str:
    """The canonical text of a file, with a line break at its end unless empty."""
    parts: list[Doc] = []
    for before, item in zip((None, *file.items), file.items, strict=False):
        gap: Doc = HARD if _together(before, item) else (HARD, HARD)
        parts += [gap, _item(item)] if parts else [_item(item)]
    if file.closing:
        parts += [(HARD, HARD)] if parts else []
        parts.append(join(HARD, map(_comment, file.closing)))
    return lay_out((*parts, HARD), WIDTH) if parts else ""


def print_method(method: ast.Method) -> str:
    """The canonical text of a method definition, on several lines.

    >>> from peftc.syntax.parse import parse_method
    >>> print(print_method(parse_method("method s() on norm {param d[hidden];g'=g+d}")))
    method s() on norm {
      param d[hidden]
      g' = g + d
    }
    """
    return lay_out(_item(method), WIDTH)


def print_expr(expr: ast.Expr) -> str:
    """The canonical text of an expression, on one line.

    >>> from peftc.syntax.parse import parse_expr
    >>> print_expr(parse_expr("W+((alpha/r)*(B@A))"))
    'W + alpha / r * B @ A'
    """
    return lay_out(_expr(expr), math.inf)


def print_spec(expr: ast.SpecExpr) -> str:
    """The canonical text of a spec expression, on one line."""
    return lay_out(_spec(expr), math.inf)


# --- items and comments --------------------------------------------------------------


def _together(before: ast.Item | None, item: ast.Item) -> bool:
    """Whether no blank line parts two items: `use` after `use`, `let` after `let`."""
    return type(before) is type(item) and isinstance(item, ast.Use | ast.Let)


def _comment(text: str, before: str = "") -> Doc:
    return Aside(f"{before}# {text}" if text else f"{before}#")


def _commented(node: ast.Commented, text: Doc) -> Doc:
    """The text of a node with its comments before and behind it."""
    before = tuple((_comment(line), HARD) for line in node.leading)
    behind: Doc = _comment(node.trailing, "  ") if node.trailing else ""
    return (*before, text, behind)


def _item(item: ast.Item) -> Doc:
    return _commented(item, _bare_item(item))


def _bare_item(item: ast.Item) -> Doc:
    if isinstance(item, ast.Use):
        return f'use "{item.path.value}"'
    if isinstance(item, ast.Let):
        return (f"let {item.name} = ", _expr(item.value))
    if isinstance(item, ast.Macro):
        return _macro(item)
    if isinstance(item, ast.Main):
        return _spec(item.body)
    clauses = join(HARD, map(_clause, item.clauses))
    return (f"method {item.name}", _knobs(item.params), " ", clauses)


def _macro(item: ast.Macro) -> Doc:
    head: Doc = (f"spec {item.name}", _knobs(item.params), " =")
    if isinstance(item.body, ast.Sum):
        return (head, Group(Nest((SPACE, _terms(item.body)))))
    return (head, " ", _spec(item.body))


def _knobs(params: Iterable[ast.Parameter]) -> Doc:
    return listed("(", map(_knob, params), ")")


def _knob(knob: ast.Parameter) -> Doc:
    written = " | ".join(knob.words) or knob.type
    kind = f": {written}" if written else ""
    default: Doc = (" = ", _expr(knob.default)) if knob.default else ""
    return (knob.name, kind, default)


# --- methods -------------------------------------------------------------------------


def _clause(clause: ast.Clause) -> Doc:
    guard = f" where {print_guard(clause.guard)}" if clause.guard else ""
    lines: list[Doc] = [_commented(s, _statement(s)) for s in clause.body]
    lines += map(_comment, clause.closing)
    body: Doc = (Nest(tuple((HARD, line) for line in lines)), HARD) if lines else ""
    return _commented(clause, (f"on {clause.place}{guard} {{", body, "}"))


def print_guard(guard: ast.Guard) -> str:
    """The alternatives of a guard: `a and b is c or d`."""
    return " or ".join(" and ".join(map(_test, tests)) for tests in guard)


def _test(test: ast.Test) -> str:
    return f"{test.name} is {test.word}" if test.word else test.name


def _statement(statement: ast.Statement) -> Doc:
    if isinstance(statement, ast.Declare):
        words = f"shared {statement.kind}" if statement.shared else statement.kind
        tensors = join((",", SPACE), map(_tensor, statement.tensors))
        return Group((words, " ", Nest(tensors)))
    if isinstance(statement, ast.Define):
        return (f"{statement.name} = ", _expr(statement.value))
    if isinstance(statement, ast.Rule):
        return (f"{statement.target}' = ", _expr(statement.value))
    if isinstance(statement, ast.Loss):
        return ("loss += ", _expr(statement.value))
    if isinstance(statement, ast.Store):
        return (f"store {statement.tensor}", _random(statement.value))
    if isinstance(statement, ast.Network):
        head = f"network {statement.builder}"
    else:
        head = f"train {statement.control}"
    return (head, listed("(", map(_arg, statement.args), ")"))


def _tensor(tensor: ast.Tensor) -> Doc:
    head: Doc = (tensor.name, _sizes(tensor.axes))
    if tensor.init is None:
        return head
    if not isinstance(tensor.init, ast.Random):
        return (head, " = ", _expr(tensor.init))
    return (head, _random(tensor.init))


def _random(random: ast.Random) -> Doc:
    listing = listed("(", map(_expr, random.args), ")") if random.args else ""
    return (f" ~ {random.distribution}", listing)


def _sizes(sizes: Iterable[ast.Expr]) -> Doc:
    return ("[", join(", ", (_expr(size, tight=True) for size in sizes)), "]")


# --- specs ---------------------------------------------------------------------------


def _spec(expr: ast.SpecExpr) -> Doc:
    if isinstance(expr, ast.Sum):
        return Group(Nest(_terms(expr)))
    if isinstance(expr, ast.Apply):
        return (expr.name, listed("(", map(_arg, expr.args), ")"))
    if isinstance(expr.body, ast.Sum):
        body = listed("(", [_terms(expr.body)], ")")
    else:
        body = _spec(expr.body)
    return (body, " @ ", _scope(expr.scope))


def _terms(expr: ast.Sum) -> Doc:
    return join((SPACE, "+ "), map(_spec, expr.terms))


def _arg(arg: ast.Arg) -> Doc:
    value = arg.value
    if arg.name:
        assert not isinstance(value, ast.Optional | ast.Apply | ast.Scoped | ast.Sum)
        return (f"{arg.name}=", _expr(value, tight=True))
    if isinstance(value, ast.Optional):
        return (_expr(value.target), "?")
    if isinstance(value, ast.Apply | ast.Scoped | ast.Sum):
        return _spec(value)
    return _expr(value)


def _scope(scope: ast.Scope) -> Doc:
    ranges = listed("(", map(_layers, scope.ranges), ")") if scope.ranges else ""
    return (scope.name, ranges)


def _layers(layers: ast.LayerRange) -> Doc:
    first = _expr(layers.first, tight=True)
    if layers.first == layers.last:
        return first
    return (first, "..", _expr(layers.last, tight=True))


# --- expressions ---------------------------------------------------------------------


def _level(expr: ast.Expr) -> int:
    """How tightly the outermost operation of an expression binds."""
    if isinstance(expr, ast.Binary):
        return LEVELS[expr.op]
    return FACTOR if isinstance(expr, ast.Negate) else POSTFIX


def _expr(expr: ast.Expr, least: int = SUM, tight: bool = False) -> Doc:
    """An expression where one that binds at least so tightly is wanted.

    `tight` leaves out the blanks around operators: in sizes and arguments.
    """
    if _level(expr) < least:
        return ("(", _expr(expr, tight=tight), ")")
    if isinstance(expr, ast.Binary):
        return _chain(expr, tight)
    if isinstance(expr, ast.Negate):
        return ("-", _expr(expr.operand, FACTOR, tight))
    if isinstance(expr, ast.Number):
        return _number(expr)
    if isinstance(expr, ast.Name | ast.String):
        return expr.id if isinstance(expr, ast.Name) else f'"{expr.value}"'
    if isinstance(expr, ast.Is):
        return f"{expr.name.id} is {expr.word}"
    return _postfix(expr, tight)


def _chain(expr: ast.Binary, tight: bool) -> Doc:
    """Operands of one level, which group from the left, in one row."""
    level = LEVELS[expr.op]
    parts: list[Doc] = []
    left: ast.Expr = expr
    while isinstance(left, ast.Binary) and LEVELS[left.op] == level:
        right = _expr(left.right, level + 1, tight)
        spaced = not tight or left.op == "@"
        parts.append((SPACE, left.op, " ", right) if spaced else (left.op, right))
        left = left.left
    first = _expr(left, level, tight)
    return Group(Nest((first, *reversed(parts))))


def _postfix(
    expr: ast.Call | ast.Transpose | ast.Index | ast.Binder, tight: bool
) -> Doc:
    if isinstance(expr, ast.Call):
        args = (_argument(arg, tight) for arg in expr.args)
        return (_expr(expr.head, POSTFIX, tight), listed("(", args, ")"))
    if isinstance(expr, ast.Transpose):
        return (_expr(expr.operand, POSTFIX, tight), ".T")
    if isinstance(expr, ast.Index):
        indices = ", ".join(index.id for index in expr.indices)
        return (_expr(expr.operand, POSTFIX, tight), f"[{indices}]")
    ranges = ((f"{name}: ", _expr(size, tight=True)) for name, size in expr.ranges)
    body = listed("(", [_expr(expr.body, tight=tight)], ")")
    return (expr.kind, "[", join(", ", ranges), "]", body)


def _argument(arg: ast.Expr | ast.Axes, tight: bool) -> Doc:
    return _sizes(arg.sizes) if isinstance(arg, ast.Axes) else _expr(arg, tight=tight)


def _number(number: ast.Number) -> str:
    """The shortest spelling that reads back as the same number."""
    mantissa, mark, exponent = repr(number.value).partition("e")
    return f"{mantissa}{mark}{int(exponent) if mark else ''}{number.unit}"
