"""Seconds of tasks that take turns.

In: tasks by name, a clock.  Out: rounds, each with the seconds of all tasks; those of
one round lie near each other in time, so that their ratios say what they cost though
the machine is shared.  A round that was interrupted is no round.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from peftc.bench.tasks import Task

Round = dict[str, float]


@dataclass(frozen=True)
class Clock:
    """How seconds are taken, and with how many threads."""

    name: str
    threads: int
    seconds: Callable[[Callable[[], object]], float]


def _processor(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return time.process_time() - begun


def _wall(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _events(run: Callable[[], object]) -> float:
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begun.record()
    run()
    ended.record()
    torch.cuda.synchronize()
    milliseconds: float = begun.elapsed_time(ended)
    return milliseconds / 1000


PROCESSOR = Clock("processor time, one thread", 1, _processor)
"""Robust where neighbours work on the same machine."""
WALL = Clock("wall time, two threads", 2, _wall)
EVENTS = Clock("events of the device", 1, _events)


def rounds(
    tasks: Mapping[str, Task], clock: Clock, count: int, seed: int
) -> Iterator[Round]:
    """So many rounds, in each of which every task runs once, in random order."""
    order = random.Random(seed)
    with threads(clock.threads):
        for _ in range(count):
            names = order.sample(list(tasks), len(tasks))
            found = {name: timed(tasks[name], clock) for name in names}
            yield {name: found[name] for name in tasks}


def timed(task: Task, clock: Clock) -> float:
    """The seconds of one task, once."""
    task.prepare()
    return clock.seconds(task.run)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """With so many threads inside an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
