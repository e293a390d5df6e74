"""A text from a stranger costs neither much time nor the stack."""

from __future__ import annotations

import gc
import sys
import time
from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.diagnostics.syntax import TooDeep, TooLarge
from peftc.syntax import ast
from peftc.syntax.limits import MAX_BRACKETS, MAX_CHARACTERS, MAX_OPERATIONS, MAX_TOKENS
from peftc.syntax.parse import parse_expr, parse_spec
from peftc.syntax.print import format_file, print_expr
from peftc.syntax.read import MAX_BYTES, decode, read_source
from peftc.syntax.walk import walk

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.diagnostics.core import Diagnostic

MANY = 100_000


def errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(PeftcError) as caught:
        parse_spec(text)
    return caught.value.diagnostics


@pytest.fixture(autouse=True, scope="module")
def alone() -> None:
    """Leave what other tests keep alive out of what the parser's garbage costs.

    In a process that holds torch and models, every collection that the parser sets off
    walks all of that, and the clock would measure the other tests.
    """
    gc.collect()
    gc.freeze()


@pytest.mark.parametrize(
    "text",
    [
        "(" * MANY + "a()" + ")" * MANY,
        "(" * MANY,
        "[" * MANY,
        "method m() on linear " + "{" * MANY,
        "let a = " + "(" * MANY,
        "gate(" * 40_000,
        "gate(" * 10_000 + "lora(q)" + ")" * 10_000,
        "method m() on linear { y' = " + "f(" * 30_000,
        "let a = " + "-" * 30_000 + "1",
        "let a = 1" + " + 1" * 30_000,
        "let a = 1" + " @ b" * 20_000,
        "let a = b" + ".T" * 30_000,
        "let a = b" + "(1)" * 10_000,
        "a()" + " @ enc" * 20_000,
    ],
    ids=lambda text: text[:24],
)
def test_nesting_ends_in_one_diagnostic_within_a_second(text: str) -> None:
    start = time.process_time()
    (error,) = errors(text)
    assert isinstance(error, TooDeep | TooLarge)
    assert time.process_time() - start < 1
    assert error.span is not None


def test_a_long_sum_of_methods_is_no_nesting() -> None:
    start = time.process_time()
    file = parse_spec(" + ".join(["a()"] * 16_000))
    assert time.process_time() - start < 2
    (main,) = file.items
    assert isinstance(main, ast.Main)
    assert isinstance(main.body, ast.Sum)
    assert len(main.body.terms) == 16_000
    assert parse_spec(format_file(file)) == file


def test_too_large() -> None:
    """PEFT108, for characters, tokens and bytes."""
    for text in ("#" * (MAX_CHARACTERS + 1), ";" * (MAX_TOKENS + 1)):
        (error,) = errors(text)
        assert isinstance(error, TooLarge)
        assert error.code == "PEFT108"
    with pytest.raises(PeftcError, match="PEFT108"):
        decode(b"#" * (MAX_BYTES + 1), "x.peft")


def test_as_large_as_allowed() -> None:
    assert parse_spec("#" + " " * (MAX_CHARACTERS - 1)).items == ()
    assert parse_spec(";" * MAX_TOKENS).items == ()


def test_brackets_as_deep_as_allowed() -> None:
    deep = "gate(" * (MAX_BRACKETS - 1) + "ia3(q)" + ")" * (MAX_BRACKETS - 1)
    file = parse_spec(deep)
    assert parse_spec(format_file(file)) == file
    (error,) = errors(f"gate({deep})")
    assert isinstance(error, TooDeep)


def test_operations_as_deep_as_allowed_leave_room_on_the_stack() -> None:
    """The printer and equality recurse; the limit is there for them and all others."""
    text = "(-" * 32 + "1" + " + 1)" * 32
    limit = sys.getrecursionlimit()
    expr = parse_expr(text)
    assert max(depth for _, depth in walk([expr])) > MAX_OPERATIONS // 2
    assert parse_expr(print_expr(expr)) == expr
    assert sys.getrecursionlimit() == limit


def test_many_errors_are_not_all_reported() -> None:
    assert len(errors("let = 1\n" * 1000)) == 20
    assert len(errors("a()\n" * 1000)) == 20


@pytest.mark.parametrize("digits", ["9" * 18, "0.000" + "1" * 18, "1e308", "00001"])
def test_numbers_that_are_not_too_long(digits: str) -> None:
    assert parse_expr(digits) == ast.Number(
        int(digits) if digits.isdigit() else float(digits),
        span=parse_expr(digits).span,
    )


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 100_000, "1e309", "1e" + "0" * 19])
def test_numbers_that_are_too_long(digits: str) -> None:
    with pytest.raises(PeftcError, match="PEFT109"):
        parse_expr(digits)


def test_reading_files(tmp_path: Path) -> None:
    path = tmp_path / "x.peft"
    path.write_bytes(b"\xef\xbb\xbflora(q)\r\n")
    assert read_source(path, "x.peft").text == "lora(q)\r\n"
    path.write_bytes(b"lora(\xff)")
    with pytest.raises(PeftcError, match=r"PEFT113.*\nx\.peft:1:1"):
        read_source(path, "x.peft")
    with pytest.raises(FileNotFoundError):
        read_source(tmp_path / "y.peft")
