"""Ratios of times of the same round, on known numbers."""

from __future__ import annotations

import pytest

from peftc.bench.ratios import quartiles, ratio

ROUNDS = [
    {"a": 1.0, "b": 2.0},
    {"a": 3.0, "b": 2.0},
    {"a": 2.0, "b": 8.0},
    {"a": 4.0, "b": 4.0},
]
"""Ratios 0.5, 1.5, 0.25, 1."""


def test_a_ratio_is_that_of_each_round() -> None:
    found = ratio(ROUNDS, "a", "b")
    assert found is not None
    assert found.median == 0.75
    assert (found.low, found.high) == (0.4375, 1.125)
    assert found.least == 0.5  # 1 / 2, of different rounds


def test_a_slow_minute_does_not_change_it() -> None:
    """What makes both slower in some rounds leaves their ratio."""
    slow = [{name: 10 * t for name, t in one.items()} for one in ROUNDS]
    assert ratio([*ROUNDS, *slow], "a", "b").median == 0.75  # type: ignore[union-attr]


def test_without_both_there_is_none() -> None:
    assert ratio(ROUNDS, "a", "c") is None
    assert ratio([], "a", "b") is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [([2.0], (2.0, 2.0, 2.0)), ([1.0, 2.0, 3.0, 4.0], (1.75, 2.5, 3.25))],
)
def test_quartiles(values: list[float], expected: tuple[float, ...]) -> None:
    assert quartiles(values) == expected
