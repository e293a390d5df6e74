"""Rounds: everyone's turn in each, in an order that chance decides."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import torch

from peftc.bench.tasks import Task
from peftc.bench.timing import PROCESSOR, WALL, Round, rounds, timed

if TYPE_CHECKING:
    from collections.abc import Callable


def nothing() -> None:
    """Takes no time."""


def test_all_take_turns_in_random_order() -> None:
    seen: list[str] = []

    def noted(name: str) -> Task:
        return Task(nothing, lambda: seen.append(name))

    tasks = {name: noted(name) for name in "abc"}
    found = list(rounds(tasks, PROCESSOR, 8, seed=0))
    assert [list(one) for one in found] == [["a", "b", "c"]] * 8
    orders = {tuple(seen[i : i + 3]) for i in range(0, 24, 3)}
    assert len(orders) > 1
    assert all(sorted(order) == ["a", "b", "c"] for order in orders)


def test_an_interrupted_round_is_none() -> None:
    calls = iter(range(10))

    def pressed() -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt

    kept: list[Round] = []
    tasks = {"a": Task(nothing, pressed), "b": Task(nothing, nothing)}
    with pytest.raises(KeyboardInterrupt):
        kept.extend(rounds(tasks, PROCESSOR, 5, seed=0))
    assert [set(one) for one in kept] == [{"a", "b"}] * 2


def work() -> None:
    end = time.process_time() + 0.02
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("prepare", "run", "low", "high"),
    [(nothing, work, 0.02, 1.0), (work, nothing, 0.0, 0.01)],
    ids=["work counts", "preparing does not"],
)
def test_what_is_timed(
    prepare: Callable[[], None], run: Callable[[], None], low: float, high: float
) -> None:
    assert low <= timed(Task(prepare, run), PROCESSOR) < high


def test_sleep_is_no_processor_time() -> None:
    task = Task(nothing, lambda: time.sleep(0.02))
    assert timed(task, PROCESSOR) < 0.02 <= timed(task, WALL)


def test_the_number_of_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    seen: list[int] = []
    task = Task(nothing, lambda: seen.append(torch.get_num_threads()))
    list(rounds({"a": task}, WALL, 1, seed=0))
    assert seen == [2]
    assert torch.get_num_threads() == before
