"""From what the grammar recognised to the syntax tree, bottom-up.

One method per rule of `peft.lark`; each gets the values of the rule's parts, already
built.  Spans run from the first to the last token of a node; a node in parentheses
covers them.  A sum of specs inside a sum is flattened.
"""

# ruff: noqa: D102 - what an action builds is said by its rule in the grammar

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast

from lark import Token, Transformer, v_args

from peftc.syntax import ast
from peftc.syntax.source import Source, Span


class Lexeme(Token):
    """A token that knows its source."""

    source: Source

    @classmethod
    def at(cls, kind: str, source: Source, start: int, end: int) -> Lexeme:
        """The token of a kind that covers `start` to `end`."""
        lexeme = cls(kind, source.text[start:end], start, end_pos=end)
        lexeme.source = source
        return lexeme

    @property
    def start(self) -> int:
        """Offset of the first character."""
        return cast("int", self.start_pos)

    @property
    def end(self) -> int:
        """Offset behind the last character."""
        return cast("int", self.end_pos)

    @property
    def span(self) -> Span:
        """Where the token stands."""
        return Span(self.source, self.start, self.end)


Part: TypeAlias = Any  # a Lexeme, a node, or None where an optional part is missing


def _nodes(parts: tuple[Part, ...]) -> tuple[Any, ...]:
    return tuple(part for part in parts if isinstance(part, ast.Node))


def _names(parts: tuple[Part, ...]) -> tuple[Lexeme, ...]:
    return tuple(part for part in parts if getattr(part, "type", "") == "NAME")


def _number(text: str) -> int | float:
    return int(text) if text.isdecimal() else float(text)


@v_args(inline=True)
class Builder(Transformer[Token, Any]):
    """The semantic actions."""

    # --- items ---------------------------------------------------------------------

    def file(self, *parts: Part) -> tuple[ast.Item, ...]:
        return _nodes(parts)

    def use(self, word: Lexeme, path: Lexeme) -> ast.Use:
        return ast.Use(self.string(path), span=word.span.to(path.span))

    def let(self, word: Lexeme, name: Lexeme, _: Part, value: ast.Expr) -> ast.Let:
        return ast.Let(str(name), value, span=word.span.to(value.span))

    def macro(
        self, word: Lexeme, name: Lexeme, knobs: Part, _: Part, body: ast.SpecExpr
    ) -> ast.Macro:
        return ast.Macro(str(name), knobs or (), body, span=word.span.to(body.span))

    def main(self, body: ast.SpecExpr) -> ast.Main:
        return ast.Main(body, span=body.span)

    # --- methods -------------------------------------------------------------------

    def method(
        self, word: Lexeme, name: Lexeme, knobs: Part, *clauses: ast.Clause
    ) -> ast.Method:
        span = word.span.to(clauses[-1].span)
        return ast.Method(str(name), knobs or (), clauses, span=span)

    def knobs(self, *parts: Part) -> tuple[ast.Parameter, ...]:
        return _nodes(parts)

    def knob(self, name: Lexeme, kind: Part, default: Part) -> ast.Parameter:
        words = tuple(map(str, _names(kind))) if kind and len(kind) > 1 else ()
        last = default or (kind[-1] if kind else name)
        span = name.span.to(last.span)
        written = "" if words or not kind else str(kind[0])
        return ast.Parameter(str(name), written, default, words, span=span)

    def type(self, *parts: Lexeme) -> tuple[Lexeme, ...]:
        return parts

    def clause(
        self, word: Lexeme, place: Lexeme, guard: Part, *parts: Part
    ) -> ast.Clause:
        span = word.span.to(parts[-1].span)
        return ast.Clause(str(place), _nodes(parts), guard or (), span=span)

    def guard(self, *parts: Part) -> ast.Guard:
        return tuple(part for part in parts if isinstance(part, tuple))

    def alternative(self, *parts: Part) -> tuple[ast.Test, ...]:
        return _nodes(parts)

    def test(self, name: Lexeme, _: Part, word: Part) -> ast.Test:
        span = name.span.to((word or name).span)
        return ast.Test(str(name), str(word or ""), span=span)

    def declare(self, shared: Part, kind: Lexeme, *parts: Part) -> ast.Declare:
        tensors = _nodes(parts)
        span = (shared or kind).span.to(tensors[-1].span)
        word = cast("Literal['param', 'buffer']", str(kind))
        return ast.Declare(word, tensors, shared is not None, span=span)

    def tensor(self, name: Lexeme, axes: ast.Axes, init: Part) -> ast.Tensor:
        span = name.span.to((init or axes).span)
        return ast.Tensor(str(name), axes.sizes, init, span=span)

    def shape(self, *parts: Part) -> ast.Axes:
        return self.axes(*parts)

    def rest(self, token: Lexeme) -> ast.Name:
        return ast.Name(ast.REST, span=token.span)

    def random(self, name: Lexeme, *parts: Part) -> ast.Random:
        last = next((part for part in reversed(parts) if part), name)
        return ast.Random(str(name), _nodes(parts), span=name.span.to(last.span))

    def define(self, name: Lexeme, value: ast.Expr) -> ast.Define:
        return ast.Define(str(name), value, span=name.span.to(value.span))

    def rule(self, target: Lexeme, value: ast.Expr) -> ast.Rule:
        return ast.Rule(str(target)[:-1], value, span=target.span.to(value.span))

    def loss(self, word: Lexeme, value: ast.Expr) -> ast.Loss:
        return ast.Loss(value, span=word.span.to(value.span))

    def train(self, word: Lexeme, name: Lexeme, *parts: Part) -> ast.Train:
        span = word.span.to(parts[-1].span)
        return ast.Train(str(name), _nodes(parts), span=span)

    def value(self, expr: ast.Expr) -> ast.Arg:
        return ast.Arg(expr, span=expr.span)

    def store(self, word: Lexeme, name: Lexeme, value: ast.Random) -> ast.Store:
        return ast.Store(str(name), value, span=word.span.to(value.span))

    def network(self, word: Lexeme, name: Lexeme, *parts: Part) -> ast.Network:
        span = word.span.to(parts[-1].span)
        return ast.Network(str(name), _nodes(parts), span=span)

    # --- specs -----------------------------------------------------------------------

    def sum(self, *parts: Part) -> ast.SpecExpr:
        found = _nodes(parts)
        if len(found) == 1:
            return cast("ast.SpecExpr", found[0])
        terms: list[ast.SpecExpr] = []
        for term in found:
            terms += term.terms if isinstance(term, ast.Sum) else (term,)
        return ast.Sum(tuple(terms), span=found[0].span.to(found[-1].span))

    def scoped(self, body: ast.SpecExpr, _: Part, scope: ast.Scope) -> ast.Scoped:
        return ast.Scoped(body, scope, span=body.span.to(scope.span))

    def group(self, left: Lexeme, body: ast.SpecExpr, right: Lexeme) -> ast.SpecExpr:
        return replace(body, span=left.span.to(right.span))

    def apply(self, name: Lexeme, *parts: Part) -> ast.Apply:
        span = name.span.to(parts[-1].span)
        return ast.Apply(str(name), _nodes(parts), span=span)

    def named(self, name: Lexeme, _: Part, value: ast.Expr) -> ast.Arg:
        return ast.Arg(value, str(name), span=name.span.to(value.span))

    def site(self, target: Lexeme, mark: Part) -> ast.Arg:
        is_text = target.type == "STRING"
        named: ast.Name | ast.String
        named = self.string(target) if is_text else self.name(target)
        if mark is None:
            return ast.Arg(named, span=named.span)
        span = named.span.to(mark.span)
        return ast.Arg(ast.Optional(named, span=span), span=span)

    def inner(self, body: ast.SpecExpr) -> ast.Arg:
        return ast.Arg(body, span=body.span)

    def bare(self, number: Lexeme) -> ast.Arg:
        return ast.Arg(self.number(number), span=number.span)

    def scope(self, name: Lexeme, *parts: Part) -> ast.Scope:
        last = parts[-1] or name
        return ast.Scope(str(name), _nodes(parts), span=name.span.to(last.span))

    def layers(self, first: ast.Expr, last: Part) -> ast.LayerRange:
        last = last or first
        return ast.LayerRange(first, last, span=first.span.to(last.span))

    # --- expressions -----------------------------------------------------------------

    def binary(self, left: ast.Expr, op: Lexeme, right: ast.Expr) -> ast.Binary:
        sign = cast("Literal['+', '-', '*', '/', '@']", str(op))
        return ast.Binary(sign, left, right, span=left.span.to(right.span))

    def negate(self, minus: Lexeme, operand: ast.Expr) -> ast.Negate:
        return ast.Negate(operand, span=minus.span.to(operand.span))

    def call(self, head: ast.Expr, *parts: Part) -> ast.Call:
        return ast.Call(head, _nodes(parts), span=head.span.to(parts[-1].span))

    def transpose(self, operand: ast.Expr, mark: Lexeme) -> ast.Transpose:
        return ast.Transpose(operand, span=operand.span.to(mark.span))

    def index(self, operand: ast.Expr, *parts: Lexeme) -> ast.Index:
        indices = tuple(map(self.name, _names(parts)))
        return ast.Index(operand, indices, span=operand.span.to(parts[-1].span))

    def name(self, token: Lexeme) -> ast.Name:
        return ast.Name(str(token), span=token.span)

    def number(self, token: Lexeme) -> ast.Number:
        if token.endswith("%"):
            return ast.Number(_number(token[:-1]), "%", span=token.span)
        return ast.Number(_number(token), span=token.span)

    def string(self, token: Lexeme) -> ast.String:
        return ast.String(token[1:-1], span=token.span)

    def enclosed(self, left: Lexeme, inner: ast.Expr, right: Lexeme) -> ast.Expr:
        return replace(inner, span=left.span.to(right.span))

    def binder(self, kind: Lexeme, *parts: Part) -> ast.Binder:
        ranges = tuple(part for part in parts if isinstance(part, tuple))
        body = _nodes(parts)[-1]
        span = kind.span.to(parts[-1].span)
        return ast.Binder(str(kind), ranges, body, span=span)

    def axes(self, *parts: Part) -> ast.Axes:
        span = parts[0].span.to(parts[-1].span)
        return ast.Axes(_nodes(parts), span=span)

    def choice(self, name: Lexeme, _: Part, word: Lexeme) -> ast.Is:
        span = name.span.to(word.span)
        return ast.Is(self.name(name), str(word), span=span)

    def range(self, name: Lexeme, size: ast.Expr) -> tuple[str, ast.Expr]:
        return str(name), size
