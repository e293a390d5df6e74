"""Buffers that are drawn anew before every step of training.

In: buffers of a method.  Out: the same, with values that depend on the seed, the step
and the tensor alone: `uniform` over [low, high), or `one`, a one at a random place of
the last axis and zeros elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.plan.training import Place


class Redraw(Control):
    """Draws its tensors before the forward."""

    def before_forward(self) -> None:
        """Draw for this step."""
        self.draw()

    def draw(self) -> None:
        """Draw every tensor."""
        with torch.no_grad():
            for path, value in self.values().items():
                self.run.values.named(path).copy_(value)

    def values(self, *key: object) -> Mapping[str, torch.Tensor]:
        """What the tensors are in this step, by path; with another `key` others."""
        return {
            self.run.values.path(place.site, place.operands[index]): self._value(
                place, index, key
            )
            for place in self.places
            for index in range(len(place.operands))
        }

    def _value(self, place: Place, index: int, key: tuple[object, ...]) -> torch.Tensor:
        tensor = self.run.values.tensor(place, index)
        name = (place.site, place.operands[index])
        stream = self.run.generator(self.plan.name, *name, *key)
        if self.options["kind"] == "one":
            value = _one(tensor.shape, stream)
        else:
            low, high = float(self.options["low"]), float(self.options["high"])
            value = low + (high - low) * torch.rand(tensor.shape, generator=stream)
        return value.to(tensor)


def _one(shape: torch.Size, stream: torch.Generator) -> torch.Tensor:
    places = torch.randint(shape[-1], (*shape[:-1], 1), generator=stream)
    return torch.zeros(shape).scatter(-1, places, 1.0)
