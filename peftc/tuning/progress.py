"""How training goes: the loss, the throughput, the time left, on stderr.

On a terminal a bar that moves; elsewhere a plain line now and then.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from transformers import TrainerCallback

if TYPE_CHECKING:
    from peftc.tuning.examples import Collate

LINES = 20
"""So many lines at most where there is no terminal."""


class Show(TrainerCallback):
    """Tells of each step."""

    def __init__(self, collate: Collate, label: str = "") -> None:
        self.collate = collate
        self.label = f"{label}  " if label else ""
        self.bar: Progress | None = None
        self.started = 0.0
        self.first = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock, and the bar if somebody sees it."""
        self.started, self.first = time.perf_counter(), state.global_step
        if sys.stderr.isatty():
            self.bar = _bar()
            self.bar.add_task(self.label, total=state.max_steps, text="")
            self.bar.start()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Show where we are."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        text = self._text(state, loss)
        if self.bar:
            task = self.bar.task_ids[0]
            self.bar.update(task, completed=state.global_step, text=text)
        elif self._is_due(state):
            where = f"step {state.global_step}/{state.max_steps}"
            print(f"{self.label}{where}  {text}", file=sys.stderr, flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the bar away."""
        self._stop()

    def _stop(self) -> None:
        if self.bar:
            self.bar.stop()
            self.bar = None

    def _is_due(self, state: Any) -> bool:
        every = -(-state.max_steps // LINES)
        step, last = int(state.global_step), int(state.max_steps)
        return step == last or step % every == 0

    def _text(self, state: Any, loss: float) -> str:
        seconds = max(time.perf_counter() - self.started, 1e-9)
        done = max(1, state.global_step - self.first)
        left = seconds / done * (state.max_steps - state.global_step)
        rate = self.collate.tokens / seconds
        return f"loss {loss:.4f}  {rate:,.0f} tokens/s  {clock(left)} left"


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}step"),
        MofNCompleteColumn(),
        BarColumn(),
        TextColumn("{task.fields[text]}"),
    )
    return Progress(*columns, console=Console(stderr=True))


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
