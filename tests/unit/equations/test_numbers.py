"""Arithmetic on numbers that are known before any tensor is."""

from __future__ import annotations

from fractions import Fraction

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.expr.functions import ELEMENTWISE
from peftc.expr.numbers import LARGEST_SQUARE, WORDS, Value, compute, near_sqrt
from peftc.syntax.parse import parse_expr

NAMES: dict[str, Value] = {
    "r": 8,
    "alpha": 16.0,
    "wide": True,
    "act": "gelu",
    "out": 1000,
    "unknown": None,
}


def value(text: str) -> Value:
    return compute(parse_expr(text), NAMES)


def code(text: str) -> str:
    with pytest.raises(PeftcError) as caught:
        value(text)
    return ",".join(d.code for d in caught.value.diagnostics)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * r + 1", 17),
        ("r / 4", 2),
        ("r / 3", Fraction(8, 3)),
        ("r / 3 * 3", 8),
        ("alpha / r", 2.0),
        ("-(r - 10)", 2),
        ("5%", Fraction(1, 20)),
        ("0.5%", Fraction(1, 200)),
        ("sqrt(16)", 4),
        ("sqrt(2)", 2**0.5),
        ("near_sqrt(out)", 25),
        ("min(r, 3)", 3),
        ("max(r, 3, out)", 1000),
        ("exp(log(alpha))", pytest.approx(16)),
        ("choose(wide, r, out)", 8),
        ("choose(false, r, out)", 1000),
        ("choose(wide, gelu, relu)", "gelu"),
        ("gelu", "gelu"),
        ("true", True),
    ],
)
def test_values(text: str, expected: Value) -> None:
    assert value(text) == expected


def test_whole_results_are_ints() -> None:
    assert isinstance(value("r / 4"), int)
    assert isinstance(value("r / 3 * 3"), int)


@pytest.mark.parametrize(
    "text",
    ["unknown", "-unknown", "unknown * 2", "sqrt(unknown)", "min(1, unknown)"],
)
def test_what_depends_on_an_unknown_is_unknown(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rr", "PEFT230"),
        ("rr + aplha", "PEFT230,PEFT230"),
        ("sqtr(r)", "PEFT231"),
        ("sqrt(r, r)", "PEFT232"),
        ("choose(wide, r)", "PEFT232"),
        ("act + 1", "PEFT245"),
        ("wide * 2", "PEFT245"),
        ("gelu(r)", "PEFT245"),
        ("choose(r, 1, 2)", "PEFT245"),
        ("r @ r", "PEFT245"),
        ("r / 0", "PEFT246"),
        ("unknown / (2 - 2)", "PEFT246"),
        ("log(0)", "PEFT246"),
        ("sqrt(0 - 1)", "PEFT246"),
        ("exp(1000)", "PEFT246"),
        ("near_sqrt(2.5)", "PEFT246"),
        ("near_sqrt(10000000000000000)", "PEFT246"),
    ],
)
def test_errors(text: str, expected: str) -> None:
    assert code(text) == expected


@pytest.mark.parametrize(
    ("n", "expected"), [(1, 1), (2, 1), (12, 3), (64, 8), (97, 1), (768, 24)]
)
def test_near_sqrt(n: int, expected: int) -> None:
    assert near_sqrt(n) == expected


def test_near_sqrt_ends_soon_for_the_largest_number() -> None:
    assert near_sqrt(LARGEST_SQUARE) == 2**20


def test_words_are_the_elementwise_functions() -> None:
    """What equations may call is what the rest of the compiler can compute."""
    assert WORDS - {"identity"} == set(ELEMENTWISE) - {"recip"}
