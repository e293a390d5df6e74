"""Projection of a difference on its largest elements, once, in the middle of training.

In: a mask, a flag, the trained tensor and the difference that it makes with gates.
Out: at a share of the steps the mask of the largest differences of all sites together,
the flag 1, and the trained tensor at what the difference was; what the optimizer has
gathered about it is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.masks import NothingKept
from peftc.training import choice
from peftc.training.control import Control

if TYPE_CHECKING:
    from torch import Tensor


class Project(Control):
    """Projects after the step that the share `at` of the run ends with."""

    MASK, FLAG, VALUE, DIFFERENCE = range(4)

    def after_optimizer(self) -> None:
        """Project if it is time."""
        when = max(1, round(float(self.options["at"]) * self.run.steps(self)))
        if self.run.step + 1 == when:
            self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Keep the largest differences, without noise."""
        values = [
            self.run.values.value(place, self.DIFFERENCE, training=False)
            for place in self.places
        ]
        masks = self._masks(values)
        for place, mask, value in zip(self.places, masks, values, strict=True):
            self.run.values.tensor(place, self.MASK).copy_(mask)
            self.run.values.tensor(place, self.FLAG).fill_(1)
            trained = self.run.values.tensor(place, self.VALUE)
            trained.copy_(mask * value)
            self.run.forget([trained])

    def _masks(self, values: list[Tensor]) -> list[Tensor]:
        count = sum(value.numel() for value in values)
        share = float(self.options["keep"])
        keep = choice.removed(share, count)
        if not keep:
            raise fail(NothingKept(keep=share, count=count))
        return choice.together([value.abs() for value in values], keep)
