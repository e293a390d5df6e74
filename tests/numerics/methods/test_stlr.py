"""The slanted triangle: the numbers of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import peftc
from peftc.training import Run
from peftc.training.controls.schedule import Schedule, triangle
from tests.numerics.runtime.tiny import llama, refused
from tests.numerics.training.both import assert_equal, by_trainer, looped

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 0.01


def test_the_numbers_of_the_paper() -> None:
    rates = [LARGEST * triangle(t, 100, 32, 1000) for t in (0, 100, 1000)]
    assert rates == pytest.approx([0.0003125, 0.01, 0.0003125], rel=1e-12)


def test_both_executors_follow_it(tmp_path: Path) -> None:
    spec = "lora(q, r=2) + stlr(cut_frac=0.34, ratio=8)"
    seen: list[float] = []

    def look(run: Run, _: object) -> None:
        (control,) = run.controls
        assert isinstance(control, Schedule)
        seen.append(control.at(run.step - 1))

    model = looped(spec, look)
    assert seen == pytest.approx([triangle(t, 2, 8, 6) for t in range(6)])
    assert_equal(model, by_trainer(spec, tmp_path, lr_scheduler_type="linear"))


def test_a_rise_of_no_steps_and_two_schedules_are_refused() -> None:
    spec = "lora(q, r=2) + stlr()"
    run = Run(peftc.compile(llama(layers=1), spec).train(), steps=5)
    (control,) = run.controls
    with refused("PEFT695"):
        control.rate(None)
    both = peftc.compile(llama(layers=1), f"{spec} + schedule()")
    with refused("PEFT696"):
        Run(both)
