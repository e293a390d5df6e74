"""What was measured, as data.

In: rows as they come.  Out: plain data: every round of every row, the machine, the
command.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from peftc.bench.machine import is_busy

if TYPE_CHECKING:
    from peftc.bench.stages import Stages
    from peftc.bench.timing import Round

VERSION = 1


@dataclass
class Row:
    """One method on one workload; mappings are by the names of peers.

    `first` is the first step's seconds of wall time, with what compiling it took;
    `apart` how far losses and gradients lie from the first peer's; `others` the cores
    that other processes used meanwhile; `problem` why nothing was timed.
    """

    title: str
    workload: str
    method: str
    spec: str
    task: str
    rounds: list[Round] = field(default_factory=list)
    wall: list[Round] = field(default_factory=list)
    saved: dict[str, int] = field(default_factory=dict)
    peak: dict[str, int] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    apart: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    graphs: dict[str, int] = field(default_factory=dict)
    operations: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    others: list[float] = field(default_factory=list)
    problem: str = ""


@dataclass
class Report:
    """A whole run."""

    suite: str
    command: str
    clock: str
    machine: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    stages: list[Stages] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def busy(self) -> bool:
        """Whether others worked on the machine meanwhile."""
        return is_busy(self.others)

    @property
    def others(self) -> list[float]:
        """Cores that other processes used while each row was timed."""
        return [cores for row in self.rows for cores in row.others]

    def record(self) -> dict[str, Any]:
        """Plain data."""
        stages = [one.record() for one in self.stages]
        told = {"version": VERSION, "busy": self.busy}
        return {**told, **asdict(self), "stages": stages}
