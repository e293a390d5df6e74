from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftc.expr.sizes import NotWhole, Size, product, show

ENV = {"out": 1000, "in": 96, "a1": 16, "r": 8}
NAMES = st.sampled_from(sorted(ENV))
ATOMS = st.one_of(NAMES.map(Size.of), st.integers(1, 9).map(Size.of))
SIZES = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda p: p[0] + p[1]),
        st.tuples(inner, inner).map(lambda p: p[0] * p[1]),
        st.tuples(inner, ATOMS).map(lambda p: p[0] / p[1]),
    ),
    max_leaves=6,
)


def number(size: Size) -> Fraction:
    try:
        return Fraction(size.value(ENV))
    except NotWhole as error:
        return error.value


def test_equal_iff_equal_for_all_values() -> None:
    out, a = Size.of("out"), Size.of("a1")
    assert a * (out / a) == out
    assert hash(a * (out / a)) == hash(out)
    assert (out + a) * 2 == out + a + a + out
    assert out / a != out


@given(SIZES, SIZES)
def test_arithmetic_is_that_of_numbers(a: Size, b: Size) -> None:
    assert number(a + b) == number(a) + number(b)
    assert number(a * b) == number(a) * number(b)


@given(SIZES, SIZES, SIZES)
def test_one_text_for_one_size(a: Size, b: Size, c: Size) -> None:
    assert str((a + b) * c) == str(c * b + a * c)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (Size.of(0), "0"),
        (Size.of("out") / "a1", "out/a1"),
        (Size.of("out") * "out" / 2, "out^2/2"),
        (Size.of(3) * "r" + 1, "1 + 3*r"),
        (Size.of(1) / "r" / "r", "1/r^2"),
    ],
)
def test_text(size: Size, text: str) -> None:
    assert str(size) == text


def test_dividing_by_a_sum_is_refused() -> None:
    with pytest.raises(ValueError, match=r"cannot divide a size by out \+ r"):
        Size.of("in") / (Size.of("out") + "r")


@pytest.mark.parametrize(
    ("size", "value"),
    [
        (Size.of("out") / "a1", Fraction(125, 2)),
        (Size.of(0), Fraction(0)),
        (Size.of("r") * -1, Fraction(-8)),
    ],
)
def test_not_a_positive_whole_number(size: Size, value: Fraction) -> None:
    with pytest.raises(NotWhole) as caught:
        size.value(ENV)
    assert caught.value.size == str(size)
    assert caught.value.value == value


def test_value_needs_every_name() -> None:
    with pytest.raises(KeyError, match="q"):
        (Size.of("q") * "r").value(ENV)


def test_of_tensors() -> None:
    axes = (Size.of("out"), Size.of("r"))
    assert show(axes) == "[out, r]"
    assert product(axes) == Size.of("r") * "out"
    assert (Size.of("out") / "a1" + "r").symbols == {"out", "a1", "r"}
