"""A suite from start to end.

In: a suite and settings.  Out: the report; what was measured before an interruption or
a disagreement is in it.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftc.bench.agreement import check, start_alike
from peftc.bench.cases import CASES
from peftc.bench.graphs import graphs
from peftc.bench.machine import machine, watched
from peftc.bench.peers import OURS, built
from peftc.bench.profile import operations
from peftc.bench.report import Report, Row
from peftc.bench.saved import saved_bytes
from peftc.bench.stages import least
from peftc.bench.tasks import TASKS
from peftc.bench.timing import EVENTS, PROCESSOR, WALL, rounds, threads
from peftc.bench.workloads import DEEP
from peftc.diagnostics.bench import NoDevice
from peftc.diagnostics.core import Diagnostics, PeftcError, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.bench.suites import Ask, Suite
    from peftc.bench.tasks import Batch, Task
    from peftc.bench.timing import Clock, Round

REPEATS = 3
"""How often each depth is compiled; the least counts."""


@dataclass(frozen=True)
class Settings:
    """`rounds`: 0 for the suite's own number; `wall`: two threads as well."""

    suite: str = "quick"
    rounds: int = 0
    seed: int = 0
    device: str = "cpu"
    wall: bool = False
    profile: bool = False
    command: str = "peftc bench"

    @property
    def clock(self) -> Clock:
        """What the device's time is taken with."""
        return PROCESSOR if self.device == "cpu" else EVENTS


@dataclass(frozen=True)
class Bench:
    """A run under way; `keep` is called after each row, `say` narrates."""

    suite: Suite
    settings: Settings
    report: Report
    keep: Callable[[Report], None]
    say: Callable[[str], None]

    def run(self) -> None:
        """Measure everything; Ctrl-C ends it early.

        Raises:
            PeftcError: PEFT710 for the rows that were refused, when all others are
                measured.
        """
        begun, refused = time.perf_counter(), Diagnostics()
        try:
            with threads(1):
                self._rows(refused)
                self._stages()
        except KeyboardInterrupt:
            self.report.interrupted = True
        self.report.seconds = time.perf_counter() - begun
        self.keep(self.report)
        refused.check()

    def _rows(self, refused: Diagnostics) -> None:
        for number, ask in enumerate(self.suite.asks, 1):
            self.say(f"{number} of {len(self.suite.asks)}: {ask.title}")
            row = Row(
                ask.title, ask.workload.name, ask.case.name, ask.case.spec, ask.task
            )
            self.report.rows.append(row)
            try:
                _Measuring(ask, row, self).run()
            except PeftcError as error:
                row.problem = str(error.diagnostics[0])
                refused.absorb(error)
            self.keep(self.report)
            _forget()

    def _stages(self) -> None:
        if self.suite.depths:
            least(DEEP, CASES[self.suite.deep], 1, 1)  # imports, and what is kept
        for depth in self.suite.depths:
            self.say(f"stages at {depth} layers")
            found = least(DEEP, CASES[self.suite.deep], depth, REPEATS)
            self.report.stages.append(found)


def bench(
    suite: Suite,
    settings: Settings,
    keep: Callable[[Report], None],
    say: Callable[[str], None],
) -> Report:
    """Measure a suite.

    Raises:
        PeftcError: PEFT713 without the device; PEFT710 if peers disagree.
    """
    if settings.device != "cpu" and not torch.cuda.is_available():
        raise fail(NoDevice(device=settings.device))
    name, clock = settings.suite, settings.clock.name
    report = Report(name, settings.command, clock, machine())
    Bench(suite, settings, report, keep, say).run()
    return report


def _forget() -> None:
    """Let go of the graphs and models of a row."""
    torch._dynamo.reset()
    gc.collect()


@dataclass(frozen=True)
class _Measuring:
    """One row being measured; its figures go into `row` as they are found."""

    ask: Ask
    row: Row
    bench: Bench

    def run(self) -> None:
        models, batch = self._models(), self._batch()
        settings, row = self.bench.settings, self.row
        row.first |= {name: _first(m, batch) for name, m in models.items()}
        dtype = self.ask.workload.dtype
        row.apart |= check(models, self.ask.case, batch, row.title, dtype)
        if self.ask.task == "train":
            row.saved |= {n: saved_bytes(m, batch) for n, m in models.items()}
        tasks = {n: TASKS[self.ask.task](m, batch) for n, m in models.items()}
        with watched() as others:
            self._time(tasks, settings.clock, row.rounds)
        row.others += others
        if settings.device != "cpu":
            row.peak |= {name: _peak(task) for name, task in tasks.items()}
        if settings.profile and self.ask.task == "train":
            row.operations |= operations(tasks)
        counted = [models[name] for name in OURS if name in models]
        if counted and self.ask.task == "train":
            row.graphs |= graphs(counted[0], batch)
        if settings.wall:
            # Last, because Dynamo captures anew for another number of threads.
            self._time(tasks, WALL, row.wall)

    def _models(self) -> dict[str, Any]:
        ask, settings = self.ask, self.bench.settings
        base = ask.workload.base(settings.seed).to(settings.device)
        models, missing = built(ask.peers, ask.case, ask.workload, base)
        self.row.missing |= missing
        start_alike(models, ask.case, settings.seed)
        return models

    def _batch(self) -> Batch:
        settings = self.bench.settings
        return self.ask.workload.inputs(settings.seed, settings.device)

    def _time(self, tasks: Mapping[str, Task], clock: Clock, kept: list[Round]) -> None:
        """The rounds; one before them, in which graphs are made, does not count."""
        settings = self.bench.settings
        count = settings.rounds or self.ask.rounds or self.bench.suite.rounds
        for number, one in enumerate(rounds(tasks, clock, count + 1, settings.seed)):
            if number:
                kept.append(one)


def _first(model: Any, batch: Batch) -> float:
    """Seconds until the first step is done, compiling included."""
    begun = time.perf_counter()
    task = TASKS["train"](model, batch)
    task.prepare()
    task.run()
    return time.perf_counter() - begun


def _peak(task: Task) -> int:
    """The most bytes that a step holds on the device."""
    torch.cuda.reset_peak_memory_stats()
    task.prepare()
    task.run()
    return torch.cuda.max_memory_allocated()
