"""Schedules against those of transformers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from peftc.plan.training import ControlPlan
from peftc.training.controls.schedule import Schedule
from tests.numerics.runtime.tiny import refused

STEPS, WARMUP = 20, 5


def schedule(kind: str, warmup: float) -> Schedule:
    options = (("kind", kind), ("warmup", warmup), ("cut", 0.1), ("ratio", 32.0))
    run: Any = SimpleNamespace(step=0, steps=lambda _: STEPS)
    return Schedule(ControlPlan("schedule", "schedule", options, ()), run)


@pytest.mark.parametrize("warmup", [WARMUP, WARMUP / STEPS])
@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_the_rates_of_transformers(kind: str, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    name = "constant_with_warmup" if kind == "constant" else kind
    theirs = get_scheduler(name, optimizer, WARMUP, STEPS)
    control = schedule(kind, warmup)
    for step in range(STEPS):
        assert control.at(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()


def test_a_warm_up_longer_than_the_run_is_refused() -> None:
    with refused("PEFT695"):
        schedule("linear", STEPS).at(0)
