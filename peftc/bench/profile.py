"""Which operations a step is made of, and what each costs.

In: tasks by the names of peers.  Out: for each operation and peer the milliseconds that
a step spends in it alone, and how often it is called.  The profiler takes wall time, so
peers take turns and the least of a few steps counts; on a busy machine read no more
than which operations are dear.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch.profiler import ProfilerActivity, profile

from peftc.bench.timing import threads

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.bench.tasks import Task

STEPS = 5
_NUMBER = re.compile(r": \d+/\d+$")
"""Of a compiled region: which one of the process it is."""
_LONG = ("autograd::engine::evaluate_function: ", "engine: ")

Operations = dict[str, dict[str, list[float]]]
"""By operation and peer: milliseconds and calls of a step."""


def operations(tasks: Mapping[str, Task]) -> Operations:
    """All operations, those that cost any peer most first."""
    found: Operations = {}
    with threads(1):
        for _ in range(STEPS):
            for name, task in tasks.items():
                for operation, cost in _of(task).items():
                    known = found.setdefault(operation, {})
                    known[name] = min(known.get(name, cost), cost)
    return dict(sorted(found.items(), key=lambda one: -_most(one[1])))


def _most(costs: Mapping[str, list[float]]) -> float:
    return max(milliseconds for milliseconds, _ in costs.values())


def _of(task: Task) -> dict[str, list[float]]:
    """One step."""
    task.prepare()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        task.run()
    found: dict[str, list[float]] = {}
    for one in seen.key_averages():
        name = _NUMBER.sub("", one.key).replace(*_LONG)
        cost = found.setdefault(name, [0.0, 0.0])
        cost[0] += one.self_cpu_time_total / 1000
        cost[1] += one.count
    return found
