"""Reports that nothing was measured for."""

from __future__ import annotations

from typing import Any

from peftc.bench.report import Report, Row
from peftc.bench.stages import Stages

MACHINE: dict[str, Any] = {
    "processor": "a processor",
    "cores": 2,
    "device": "",
    "system": "Linux",
    "versions": {"python": "3.11"},
}


def row(title: str = "C1 lora", **seconds: float) -> Row:
    """A row of three equal rounds."""
    rounds = [dict(seconds) for _ in range(3)]
    return Row(title, "C1", "lora", "lora(linear)", "train", rounds)


def stages(layers: int, each: float) -> Stages:
    """Four own stages of so many seconds."""
    return Stages(layers, 7 * layers, 1.0, each, each, each, each)


def report(*rows: Row) -> Report:
    """A report of rows on a quiet machine."""
    made = Report("cpu", "peftc bench --suite cpu", "processor time", MACHINE)
    made.rows += rows
    return made
