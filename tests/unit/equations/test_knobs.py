"""Knobs: what type they have, what users may give, what they are at a site."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.expr.check import check_method
from peftc.expr.elaborate import elaborate
from peftc.expr.ir import Leaf, walk
from peftc.expr.knobs import Given, bind_knobs, check_knobs, knob_types
from peftc.syntax.parse import parse_method

if TYPE_CHECKING:
    from peftc.syntax import ast

LINEAR = {"in": 24, "out": 36}


def method(knobs: str, body: str = "param l[out] = 1\ny' = l * y") -> ast.Method:
    return parse_method(f"method m({knobs}) on linear {{ {body} }}")


def bound(knobs: str, **given: Any) -> dict[str, Any]:
    values = {name: Given(value) for name, value in given.items()}
    return dict(bind_knobs(method(knobs), values, LINEAR))


def codes(knobs: str, **given: Given) -> list[str]:
    with pytest.raises(PeftcError) as caught:
        bind_knobs(method(knobs), given, LINEAR)
    return [d.code for d in caught.value.diagnostics]


# --- types ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("knobs", "body", "expected"),
    [
        ("r = 8", "param A[r, in] = 0\nW' = W + A.T @ A", "size"),
        ("r = 8", "param A[2*r, in] = 0\nW' = W + A.T @ A", "size"),
        ("n = 2", "param P[n, out, in] = 0\nW' = W + sum[k: n](P[k])", "size"),
        ("n = 2", "W' = W + reshape(W, [n, out*in/n])", "size"),
        ("n = 2", "W' = W @ eye(n)", "size"),
        ("n = 2", "W' = norm(W, n) * W", "size"),
        ("s = 8", "y' = s * y", "number"),
        ("s = 0.5", "y' = s * y", "number"),
        ("act = gelu", "y' = act(y)", "function"),
        ("act", "y' = act(y)", "function"),
        ("wide = true", "y' = choose(wide, y, 2 * y)", "flag"),
        ("wide", "y' = choose(wide, y, 2 * y)", "flag"),
        ("s: scale = 1", "y' = s * y", "scale"),
        ("at: up | down = up", "y' = choose(at is up, y, 2 * y)", "choice"),
    ],
)
def test_inferred_types(knobs: str, body: str, expected: str) -> None:
    (kind,) = knob_types(method(knobs, body)).values()
    assert kind.name == expected


# --- values --------------------------------------------------------------------------


def test_defaults_may_use_later_knobs_and_sizes() -> None:
    knobs = "a: size = c / 2, c: size = near_sqrt(out), s: scale = a / in"
    assert bound(knobs) == {"a": 3, "c": 6, "s": 3 / 24}


def test_what_is_given_goes_into_defaults() -> None:
    assert bound("r: size = 8, alpha: scale = 2 * r", r=5) == {"r": 5, "alpha": 10.0}


def test_numbers_have_one_python_type_for_each_knob_type() -> None:
    values = bound("r: size = 8, k: count = 0, s: scale = 1, p: fraction = 0")
    assert [type(v) for v in values.values()] == [int, int, float, float]


def test_a_whole_float_is_a_size() -> None:
    assert bound("r: size = 8", r=4.0) == {"r": 4}


def test_percent() -> None:
    knobs = method("p: fraction = 0")
    assert bind_knobs(knobs, {"p": Given(5, unit="%")}, LINEAR) == {"p": 0.05}
    assert bind_knobs(knobs, {"p": Given(0.5, unit="%")}, LINEAR) == {"p": 0.005}


def test_words_and_flags() -> None:
    values = bound("act: function = gelu, wide: flag = false", act="silu", wide=True)
    assert values == {"act": "silu", "wide": True}


def test_absurd_sizes_are_numbers_like_others() -> None:
    assert bound("r: size = 8", r=10**12) == {"r": 10**12}


def test_knobs_for_wrapped_methods_are_no_values() -> None:
    assert bound("inner: method, s: scale = 2") == {"s": 2.0}


@pytest.mark.parametrize(
    ("knobs", "given", "expected"),
    [
        ("r: size = 8", Given(0), "PEFT218"),
        ("r: size = 8", Given(-1), "PEFT218"),
        ("r: size = 8", Given(2.5), "PEFT217"),
        ("r: size = 8", Given(True), "PEFT217"),
        ("r: size = 8", Given("gelu"), "PEFT217"),
        ("r: size = 8", Given(8, unit="%"), "PEFT219"),
        ("r: count = 8", Given(-1), "PEFT218"),
        ("r: fraction = 0", Given(1), "PEFT218"),
        ("r: fraction = 0", Given(1.5), "PEFT218"),
        ("r: fraction = 0", Given(100, unit="%"), "PEFT218"),
        ("r: fraction = 0", Given(-0.1), "PEFT218"),
        ("r: scale = 1", Given(0), "PEFT218"),
        ("r: scale = 1", Given(math.inf), "PEFT218"),
        ("r: number = 1", Given(math.nan), "PEFT218"),
        ("r: number = 1", Given(10**400), "PEFT218"),
        ("r: flag = true", Given(1), "PEFT217"),
        ("r: flag = true", Given("yes"), "PEFT217"),
        ("r: function = gelu", Given(True), "PEFT217"),
        ("r: function = gelu", Given("gleu"), "PEFT222"),
    ],
)
def test_refused(knobs: str, given: Given, expected: str) -> None:
    assert codes(knobs, r=given) == [expected]


def test_all_errors_of_what_is_given_at_once() -> None:
    found = codes("r: size = 8, p: fraction = 0", r=Given(0), p=Given(5), q=Given(1))
    assert found == ["PEFT218", "PEFT218", "PEFT215"]


def test_a_fraction_that_was_meant_as_a_percentage() -> None:
    with pytest.raises(PeftcError) as caught:
        bind_knobs(method("p: fraction = 0"), {"p": Given(5)}, LINEAR)
    (found,) = caught.value.diagnostics
    assert found.fill(found.help) == "did you mean `5%`?"


def test_a_knob_without_default_must_be_given() -> None:
    assert codes("d: size") == ["PEFT216"]
    assert bound("d: size", d=3) == {"d": 3}


def test_a_knob_that_only_feeds_an_overridden_default_has_no_effect() -> None:
    body = "param A[d, in] = 0\nW' = W + A.T @ A"
    knobs = "reduction: size = 6, d: size = in / reduction"
    definition = method(knobs, body)
    both = {"reduction": Given(3), "d": Given(4)}
    with pytest.raises(PeftcError) as caught:
        check_knobs(definition, both)
    assert [d.code for d in caught.value.diagnostics] == ["PEFT221"]
    check_knobs(definition, {"reduction": Given(3)})
    check_knobs(definition, {"d": Given(3)})


def test_a_size_that_is_not_whole_at_the_site() -> None:
    assert codes("reduction: size = 7, d: size = in / reduction") == ["PEFT220"]


def test_a_default_that_is_out_of_range_at_the_site() -> None:
    assert codes("d: size = in - 24") == ["PEFT218"]
    assert codes("s: scale = in - out") == ["PEFT218"]


def test_checking_needs_no_site() -> None:
    definition = method("a: size = near_sqrt(out), s: scale = 1")
    check_knobs(definition, {"s": Given(2)})
    with pytest.raises(PeftcError):
        check_knobs(definition, {"s": Given(-2)})


def test_defaults_in_a_circle_end_in_a_diagnostic() -> None:
    assert codes("a: size = c, c: size = a") == ["PEFT264"]


# --- words and conditions ------------------------------------------------------------

WORDS = "at: first | last = first, n = choose(at is last, 2, 1)"


def test_a_choice_is_one_of_its_words_and_decides_defaults() -> None:
    assert bound(WORDS) == {"at": "first", "n": 1}
    assert bound(WORDS, at="last") == {"at": "last", "n": 2}
    assert codes(WORDS, at=Given("lst")) == ["PEFT217"]
    assert codes(WORDS, at=Given(True)) == ["PEFT217"]
    assert codes("at: first | last") == ["PEFT216"]


def test_a_word_may_be_the_name_of_a_knob_or_an_axis() -> None:
    assert bound("n = 3, at: n | out = out") == {"n": 3, "at": "out"}


def test_a_choice_decides_what_is_in_the_equation() -> None:
    body = "param a[out], c[out]\ny' = y + choose(at is last, a, c)"
    one = method("at: first | last = first", body)
    check_method(one)
    knobs = bind_knobs(one, {"at": Given("last")}, LINEAR)
    rule = elaborate(one.clauses[0], knobs, LINEAR).rules["y"]
    assert {n.name for n in walk(rule) if isinstance(n, Leaf)} == {"y", "a"}


def guarded(guard: str) -> list[str]:
    """The codes of a method whose first clause has an axis and a guard."""
    text = f"""method m(n: count = 0, k: count = 0, f: flag = false, w: a | b = a)
    on linear where {guard} {{ param A[n, in] = 0\ny' = y + k * sum(A) }}
    on linear where f or w is b {{ y' = 2 * y }}"""
    try:
        check_method(parse_method(text))
    except PeftcError as error:
        return [d.code for d in error.diagnostics]
    return []


@pytest.mark.parametrize(
    "guard", ["n", "n and f", "n and k or f and n", "n and w is b", "n and causal"]
)
def test_a_count_is_an_axis_where_it_is_not_zero(guard: str) -> None:
    assert guarded(guard) == []


@pytest.mark.parametrize("guard", ["f", "n or f", "k and n or w is a"])
def test_a_count_that_may_be_zero_is_no_axis(guard: str) -> None:
    assert guarded(guard) == ["PEFT241"]
