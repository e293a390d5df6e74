"""Which operations a step is made of, and what each costs.

In: tasks by the names of peers.  Out: for each operation and peer the milliseconds of
processor time that a step spends in it alone, and how often it is called.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch.profiler import ProfilerActivity, profile

from peftc.bench.timing import threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.bench.tasks import Task

STEPS = 3
_NUMBER = re.compile(r": \d+/\d+$")
"""Of a compiled region: which one of the process it is."""

Operations = dict[str, dict[str, list[float]]]
"""By operation and peer: milliseconds and calls of a step."""


def operations(tasks: Mapping[str, Task]) -> Operations:
    """All operations, those that cost any peer most first."""
    found: Operations = {}
    with threads(1):
        for name, task in tasks.items():
            for operation, cost in _of(task).items():
                found.setdefault(operation, {})[name] = cost
    return dict(sorted(found.items(), key=lambda one: -_most(one[1])))


def _most(costs: Mapping[str, list[float]]) -> float:
    return max(milliseconds for milliseconds, _ in costs.values())


def _of(task: Task) -> dict[str, list[float]]:
    task.prepare()
    task.run()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        for _ in range(STEPS):
            task.prepare()
            task.run()
    found: dict[str, list[float]] = {}
    for one in seen.key_averages():
        cost = found.setdefault(_NUMBER.sub("", one.key), [0.0, 0.0])
        cost[0] += one.self_cpu_time_total / STEPS / 1000
        cost[1] += one.count / STEPS
    return found
