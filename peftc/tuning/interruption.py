"""Ctrl-C and SIGTERM while training: finish the step, keep a checkpoint, stop.

A second signal stops at once; the last whole checkpoint is still there.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal; the text says how it goes on."""


class Interruption(TrainerCallback):
    """Stops a Trainer between two steps once a signal has come."""

    def __init__(self) -> None:
        self.came = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep what was done, then stop."""
        if self.came:
            control.should_save = True
            control.should_training_stop = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals of the process; only its main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, *_: Any) -> None:
        if self.came:
            raise Interrupted("interrupted again: stopped at once")
        self.came = True


@contextmanager
def terminable() -> Iterator[None]:
    """Inside, SIGTERM ends the command as Ctrl-C does, with the same exit code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(*_: Any) -> None:
    raise Interrupted("terminated; nothing was lost that was written before")
