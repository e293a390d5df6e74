"""What is to be reached on a processor, and how far from it a report is.

In: a report.  Out: verdicts.  The numbers are the project's targets; a ratio is the
median of those of all rounds.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from peftc.bench.peers import (
    EAGER,
    FROZEN,
    FROZEN_COMPILED,
    INDUCTOR,
    PEFT,
    PEFT_COMPILED,
)
from peftc.bench.ratios import ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.bench.report import Report, Row


@dataclass(frozen=True)
class Target:
    """A number that is to be at most `must`, better `ambitious`.

    `measure` is "time" or "saved" of `ours` by that of `peer` in a row, or a figure of
    the stages: "site" (milliseconds of own work for each) or "depth" (own time at the
    greatest depth by that at the least).
    """

    row: str
    measure: str
    must: float
    ambitious: float
    ours: str = EAGER
    peer: str = PEFT

    @property
    def title(self) -> str:
        """What is measured."""
        titles = {
            "site": "own work for each site, ms",
            "depth": "own work at 32 layers / at 2",
            "time": f"{self.row}: {self.ours} / {self.peer}",
            "saved": f"{self.row}: bytes kept, {self.ours} / {self.peer}",
        }
        return titles[self.measure]


TARGETS = (
    Target("C1 lora", "time", 0.86, 0.80),
    Target("C1 lora", "time", 0.86, 0.80, INDUCTOR),
    Target("C1 lora", "time", 0.95, 0.91, INDUCTOR, PEFT_COMPILED),
    Target("C1 lora", "time", 1.05, 1.03, EAGER, FROZEN),
    Target("C1 lora", "time", 1.08, 1.05, INDUCTOR, FROZEN_COMPILED),
    Target("C1 short lora", "time", 0.80, 0.77),
    Target("C1 short lora", "time", 0.80, 0.77, INDUCTOR),
    Target("C1 dora", "time", 0.78, 0.72),
    Target("C1 krona", "time", 0.58, 0.50),
    Target("C1 loha", "time", 0.60, 0.60),
    Target("C1 lora", "saved", 0.66, 0.60),
    Target("C1 lora", "saved", 0.76, 0.62, INDUCTOR, PEFT_COMPILED),
    Target("", "site", 5.0, 5.0),
    Target("", "depth", 1.2, 1.2),
)


@dataclass(frozen=True)
class Verdict:
    """A target beside what was measured; None if it was not."""

    target: Target
    value: float | None

    @property
    def state(self) -> str:
        """Met, met in full, missed by how much, or not measured."""
        if self.value is None:
            return "not measured"
        if self.value <= self.target.ambitious:
            return "met, ambitious too"
        if self.value <= self.target.must:
            return "met"
        return f"missed by {self.value - self.target.must:.2f}"

    def record(self) -> dict[str, object]:
        """Plain data."""
        told = {"title": self.target.title, "value": self.value, "state": self.state}
        return {**asdict(self.target), **told}


def verdicts(report: Report) -> Iterator[Verdict]:
    """All targets that the report's suite is about, in their order."""
    rows = {row.title: row for row in report.rows if row.rounds}
    for target in TARGETS:
        if target.row in rows:
            yield Verdict(target, _of_row(target, rows[target.row]))
        elif not target.row and report.stages:
            yield Verdict(target, _of_stages(target, report))


def _of_row(target: Target, row: Row) -> float | None:
    if target.measure == "saved":
        known = target.ours in row.saved and target.peer in row.saved
        return row.saved[target.ours] / row.saved[target.peer] if known else None
    found = ratio(row.rounds, target.ours, target.peer)
    return found.median if found else None


def _of_stages(target: Target, report: Report) -> float | None:
    first, *_, last = sorted(report.stages, key=lambda one: one.layers)
    if target.measure == "depth":
        return last.own / first.own
    return 1000 * last.own / last.linears
