"""Syntax trees and texts made at random.

Trees are as the parser makes them: a sum holds no sum, a number is not negative, a
method's first clause has no comment of its own (the method has it), and comments carry
no blanks at their ends.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from peftc.syntax import ast
from peftc.syntax.source import Source, Span
from peftc.syntax.tokens import BINDERS, keywords

if TYPE_CHECKING:
    from collections.abc import Callable

SPAN = Span(Source("made", ""), 0, 0)
ORDINARY = (
    "q",
    "v",
    "r",
    "W",
    "x",
    "y",
    "out",
    "in",
    "T",
    "t",
    "loss",
    "shared",
    "sum",
)


def make(node: Callable[..., Any], *parts: Any, **named: Any) -> Any:
    """A strategy for nodes whose fields are drawn from strategies."""
    return st.builds(functools.partial(node, span=SPAN), *parts, **named)


def tuples(part: Any, least: int = 0, most: int = 3) -> Any:
    return st.lists(part, min_size=least, max_size=most).map(tuple)


names = st.sampled_from(ORDINARY) | st.from_regex(
    r"\A[A-Za-z_][A-Za-z0-9_]{0,20}\Z"
).filter(lambda name: name not in keywords())
paths = names | st.tuples(names, names.filter(lambda n: n != "T")).map(".".join)
chars = st.characters(exclude_characters='"\n\0', exclude_categories=["Cs"])
strings = make(ast.String, st.text(chars, max_size=12))
units = st.sampled_from(["", "%"])
sizes = st.integers(0, 10**18 - 1)
floats = st.floats(0, allow_nan=False, allow_infinity=False)
numbers = make(ast.Number, sizes | floats, units)
name_nodes = make(ast.Name, paths)


def _expressions(inner: Any) -> Any:
    axes = make(ast.Axes, tuples(inner))
    choices = make(ast.Is, make(ast.Name, names), names)
    ranges = tuples(st.tuples(names, inner), least=1, most=2)
    indices = tuples(make(ast.Name, names), least=1, most=2)
    return (
        make(ast.Negate, inner)
        | make(ast.Binary, st.sampled_from("+-*/@"), inner, inner)
        | make(ast.Call, inner, tuples(inner | axes | choices))
        | make(ast.Transpose, inner)
        | make(ast.Index, inner, indices)
        | make(ast.Binder, st.sampled_from(BINDERS), ranges, inner)
    )


atoms = name_nodes | numbers | strings
expressions = st.recursive(atoms, _expressions, max_leaves=10)

# --- specs ----------------------------------------------------------------------------


def _without_twice(args: tuple[ast.Arg, ...]) -> tuple[ast.Arg, ...]:
    """No knob twice."""
    return tuple({arg.name or index: arg for index, arg in enumerate(args)}.values())


def _layer_ranges() -> Any:
    one = expressions.map(lambda expr: ast.LayerRange(expr, expr, span=SPAN))
    return one | make(ast.LayerRange, expressions, expressions)


scopes = make(ast.Scope, names, tuples(_layer_ranges(), most=2))
sites = name_nodes | strings | make(ast.Optional, name_nodes | strings)


def _specs(inner: Any) -> Any:
    no_sum = inner.filter(lambda spec: not isinstance(spec, ast.Sum))
    args = make(ast.Arg, sites | numbers | inner) | make(ast.Arg, expressions, names)
    return (
        make(ast.Apply, names, tuples(args, most=5).map(_without_twice))
        | make(ast.Scoped, inner, scopes)
        | make(ast.Sum, tuples(no_sum, least=2, most=5))
    )


specs = st.recursive(make(ast.Apply, names, st.just(())), _specs, max_leaves=6)

# --- definitions and files ------------------------------------------------------------

comment_chars = st.characters(exclude_characters="\n\0", exclude_categories=["Cs"])
comment = st.text(comment_chars, max_size=12).map(str.rstrip)
comments = tuples(comment, most=2)
optional = st.none()


def _commented(node: Callable[..., Any], *parts: Any, **named: Any) -> Any:
    trailing = st.just("") | comment
    return make(node, *parts, leading=comments, trailing=trailing, **named)


types = st.sampled_from(["", "size", "fraction", "method", "flag"])
knobs = make(ast.Parameter, names, types, optional | expressions) | make(
    ast.Parameter,
    names,
    st.just(""),
    optional | expressions,
    tuples(names, least=2),
)
starts = make(ast.Random, names, tuples(expressions))
tensors = make(ast.Tensor, names, tuples(expressions), optional | expressions | starts)
kinds = st.sampled_from(["param", "buffer"])
operands = make(ast.Arg, expressions) | make(ast.Arg, expressions, names)
statements = (
    _commented(ast.Declare, kinds, tuples(tensors, least=1), st.booleans())
    | _commented(ast.Define, names, expressions)
    | _commented(ast.Rule, names, expressions)
    | _commented(ast.Loss, expressions)
    | _commented(ast.Store, names, starts)
    | _commented(ast.Train, names, tuples(operands, most=3).map(_without_twice))
)
asked = make(ast.Test, names, st.just("") | names)
guards = tuples(tuples(asked, least=1, most=2), most=2)
last_clauses = make(
    ast.Clause, paths, tuples(statements), guards, closing=comments, leading=comments
)
clauses = _commented(ast.Clause, paths, tuples(statements), guards, closing=comments)


def _bare_first(found: tuple[list[ast.Clause], ast.Clause]) -> tuple[ast.Clause, ...]:
    first, *rest = *found[0], found[1]
    return (replace(first, leading=()), *rest)


clause_lists = st.tuples(st.lists(clauses, max_size=2), last_clauses).map(_bare_first)
methods = _commented(ast.Method, names, tuples(knobs), clause_lists)
definitions = (
    _commented(ast.Use, strings)
    | _commented(ast.Let, names, expressions)
    | _commented(ast.Macro, names, tuples(knobs), specs)
    | methods
)
mains = _commented(ast.Main, specs)


@st.composite
def files(draw: st.DrawFn) -> ast.File:
    """A file of any definitions and at most one expression, anywhere among them."""
    items = draw(st.lists(definitions, max_size=4))
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), draw(mains))
    return ast.File(tuple(items), draw(comments), span=SPAN)


# --- texts that are no specs ----------------------------------------------------------

WORDS = (
    *("method", "spec", "let", "use", "on", "where", "or", "param", "buffer", "shared"),
    *("and", "is", "|"),
    *(
        "loss",
        "+=",
        "train",
        "store",
        "sum",
        "W'",
        "lora",
        "q",
        "r",
        "0..11",
        "8",
        "5%",
        "1e-4",
        '"a*"',
    ),
    *("(", ")", "[", "]", "{", "}", ",", ":", ";", "=", "+", "-", "*", "/", "@", "~"),
    *("?", "..", ".T", "experts.up", "layers", "#", "\n", "\n", '"', "'", "é", "\t"),
)
soups = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
tight_soups = st.lists(st.sampled_from(WORDS), max_size=60).map("".join)
any_texts = st.text(max_size=200) | soups | tight_soups
