"""Targets: met, met in full, missed by how much, not measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.bench.targets import TARGETS, verdicts
from tests.unit.bench.made import report, row, stages

if TYPE_CHECKING:
    from peftc.bench.report import Report


def states(made: Report) -> dict[str, str]:
    return {one.target.title: one.state for one in verdicts(made)}


@pytest.mark.parametrize(
    ("eager", "state"),
    [(0.80, "met, ambitious too"), (0.84, "met"), (0.93, "missed by 0.07")],
)
def test_a_ratio_is_judged(eager: float, state: str) -> None:
    found = states(report(row(eager=eager, PEFT=1.0)))
    assert found["C1 lora: eager / PEFT"] == state
    assert found["C1 lora: inductor / PEFT"] == "not measured"


def test_kept_bytes_are_judged() -> None:
    made = row(eager=1.0, PEFT=1.0)
    made.saved |= {"eager": 64, "PEFT": 100}
    found = states(report(made))
    assert found["C1 lora: bytes kept, eager / PEFT"] == "met"


def test_stages_are_judged() -> None:
    made = report()
    made.stages += [stages(2, 0.01), stages(32, 0.28)]
    found = {one.target.measure: one for one in verdicts(made)}
    assert found["depth"].value == pytest.approx(28)
    assert found["depth"].state == "missed by 26.80"
    assert found["site"].value == pytest.approx(1000 * 4 * 0.28 / (7 * 32))


def test_what_was_not_asked_for_is_not_judged() -> None:
    assert list(verdicts(report(row("tiny lora", eager=1.0)))) == []


def test_no_target_is_easier_than_what_must_be() -> None:
    assert all(target.ambitious <= target.must for target in TARGETS)
