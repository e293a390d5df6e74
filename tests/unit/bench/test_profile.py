"""What operations a step is made of."""

from __future__ import annotations

import torch

from peftc.bench.profile import operations
from peftc.bench.tasks import Task


def test_operations_are_counted_apart_for_each() -> None:
    value = torch.ones(64, 64)
    tasks = {
        "one": Task(lambda: None, lambda: value @ value),
        "three": Task(lambda: None, lambda: value @ value @ value @ value),
        "other": Task(lambda: value @ value, lambda: value + value),
    }
    found = operations(tasks)
    counts = {name: calls for name, (_, calls) in found["aten::mm"].items()}
    assert counts == {"one": 1, "three": 3}  # what prepares is not looked at
    assert found["aten::add"].keys() == {"other"}
    assert all(ms > 0 for ms, _ in found["aten::mm"].values())
