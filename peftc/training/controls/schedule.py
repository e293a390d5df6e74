"""The learning rate over a run, as a share of the one the optimizer was given.

In: the number of the step and how many there are.  Out: after a linear warm-up
`constant`, `linear` to zero or half a `cosine`; or `slanted`, the triangle of
ULMFiT: up from 1 / ratio in the first `cut` of the run, then down to it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import NotInRun
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable


class Schedule(Control):
    """Sets the rate of the whole run."""

    schedules: ClassVar[bool] = True

    def rate(self, group: Hashable) -> float:
        """The share at this step."""
        return self.at(self.run.step)

    def at(self, step: int) -> float:
        """The share at a step, counted from 0.

        Raises:
            PeftcError: PEFT690, or PEFT695 if a phase does not fit the run.
        """
        total = self.run.steps(self)
        if self.options["kind"] == "slanted":
            return triangle(step, self._rise(total), self.options["ratio"], total)
        warmup = self.steps(self.options["warmup"])
        if not 0 <= warmup < total:
            raise self._unfit(f"{warmup} steps of warm-up are not below {total}")
        if step < warmup:
            return step / warmup
        return SHAPES[self.options["kind"]]((step - warmup) / (total - warmup))

    def _rise(self, total: int) -> int:
        rise = int(total * self.options["cut"])
        if not rise:
            raise self._unfit(f"`cut` of {total} steps is none")
        return rise

    def _unfit(self, problem: str) -> Exception:
        return fail(NotInRun(control=self.plan.control, problem=problem))


def triangle(step: int, rise: int, ratio: float, total: int) -> float:
    """The slanted triangle: 1 / ratio at both ends, 1 after `rise` steps."""
    done = step / rise if step < rise else 1 - (step - rise) / (total - rise)
    return (1 + done * (ratio - 1)) / ratio


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
}
"""What follows the warm-up, over the share of the rest that is done."""
