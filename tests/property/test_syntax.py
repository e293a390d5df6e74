"""Printing and parsing undo each other; no text does worse than a diagnostic."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftc.diagnostics.core import PeftcError
from peftc.diagnostics.explain import all_codes
from peftc.diagnostics.render import render_all, to_json
from peftc.syntax import ast
from peftc.syntax.comments import without_comments
from peftc.syntax.parse import parse_expr, parse_method, parse_spec
from peftc.syntax.print import format_file, print_expr, print_method, print_spec
from peftc.syntax.walk import walk
from tests.property import texts

some = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
few = settings(some, max_examples=50)
many = settings(some, max_examples=600)
CODES = frozenset(all_codes())


@few
@given(texts.files())
def test_parsing_a_printed_file_gives_the_file(file: ast.File) -> None:
    text = format_file(file)
    again = parse_spec(text)
    assert again == file
    assert format_file(again) == text
    assert not [line for line in text.split("\n") if line != line.rstrip(" ")]


@some
@given(texts.expressions)
def test_parsing_a_printed_expression_gives_the_expression(expr: ast.Expr) -> None:
    text = print_expr(expr)
    again = parse_expr(text)
    assert again == expr
    assert print_expr(again) == text


@some
@given(texts.expressions)
def test_every_span_reads_back_as_its_node(expr: ast.Expr) -> None:
    for node, _ in walk([parse_expr(print_expr(expr))]):
        if not isinstance(node, ast.Axes | ast.Is):  # arguments only
            assert parse_expr(node.span.text) == node


@some
@given(texts.specs)
def test_parsing_a_printed_spec_gives_the_spec(spec: ast.SpecExpr) -> None:
    (main,) = parse_spec(print_spec(spec)).items
    assert isinstance(main, ast.Main)
    assert main.body == spec


@few
@given(texts.methods)
def test_parsing_a_printed_method_gives_it_without_comments(method: ast.Method) -> None:
    assert parse_method(print_method(method)) == without_comments(method)


def read_or_refuse(text: str) -> None:
    """Parse a text: it can be printed again, or its diagnostics can be shown."""
    try:
        file = parse_spec(text)
    except PeftcError as error:
        refused(text, error)
    else:
        printed = format_file(file)
        assert parse_spec(printed) == file
        assert format_file(parse_spec(printed)) == printed


def refused(text: str, error: PeftcError) -> None:
    found = error.diagnostics
    assert found
    assert len(set(found)) == len(found)
    assert {diagnostic.code for diagnostic in found} <= CODES
    assert render_all(found).isprintable() or "\n" in render_all(found)
    assert len(to_json(found)["diagnostics"]) == len(found)
    spans = [diagnostic.span for diagnostic in found]
    assert all(span and 0 <= span.start <= span.end <= len(text) for span in spans)


@many
@given(texts.any_texts)
def test_any_text_is_read_or_refused(text: str) -> None:
    read_or_refuse(text)


@few
@given(texts.files(), st.data())
def test_a_damaged_text_is_read_or_refused(file: ast.File, data: st.DataObject) -> None:
    text = format_file(file)
    for _ in range(5):
        at = data.draw(st.integers(0, len(text)))
        gone = data.draw(st.integers(0, 3))
        put = data.draw(st.sampled_from(["", *texts.WORDS]))
        read_or_refuse(text[:at] + put + text[at + gone :])
