"""How to train: what the options of a command line say, checked.

In: options.  Out: `Settings`, plain data that a run's folder keeps.
"""

from __future__ import annotations

from dataclasses import dataclass

from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import BadSetting

STEPS = 200
"""Steps of a run that is told neither steps nor epochs."""
LONGEST = 512
"""Tokens of a sample, unless the model has fewer positions or is told otherwise."""
SAVED = 10
"""Checkpoints of a run that is not told how often."""


@dataclass(frozen=True)
class Settings:
    """One run: how long, how fast, on how much at once.

    `steps` or `epochs`, not both; `held_out` is the share of the data that is measured
    on and not trained; `save_every` steps there is a checkpoint, 0 for SAVED in all.
    """

    steps: int = 0
    epochs: float = 0.0
    batch: int = 8
    rate: float = 1e-3
    warmup: float = 0.1
    seed: int = 0
    longest: int = 0
    held_out: float = 0.1
    save_every: int = 0
    truncate: bool = False

    def check(self) -> None:
        """Raise `PeftcError` (PEFT687) unless the settings mean something."""
        problems = {
            "`--steps` and `--epochs` both say how long": self.steps and self.epochs,
            "`--held-out` is a share, from 0 to below 1": not 0 <= self.held_out < 1,
            "`--warmup` is a share, from 0 to 1": not 0 <= self.warmup <= 1,
            "`--lr` is above 0 and finite": not 0 < self.rate < float("inf"),
            "`--epochs` is above 0 and finite": not 0 <= self.epochs < float("inf"),
        }
        for problem, found in problems.items():
            if found:
                raise fail(BadSetting(problem=problem))

    def total_steps(self, samples: int) -> int:
        """The steps of a run on so many samples."""
        if not self.epochs:
            return self.steps or STEPS
        each = -(-samples // self.batch)
        return max(1, round(self.epochs * each))

    def between_saves(self, steps: int) -> int:
        """How many steps there are between checkpoints."""
        return self.save_every or max(1, steps // SAVED)
