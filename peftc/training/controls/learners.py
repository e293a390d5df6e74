"""The rows of weights that learn most, found by letting all of them learn.

In: for each site a selection matrix, the rows that are trained and, where there is a
bias, its elements.  Out: the selection of the rows that moved most in some steps of
training the base itself, which is put back; what is trained starts where these rows
were then.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import TYPE_CHECKING

import torch

from peftc.training.base import at_site, learning_base
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.plan.training import Place
    from peftc.training.control import Batch


class Learners(Control):
    """Primes before training."""

    @property
    def needs_data(self) -> bool:
        """Priming is training."""
        return True

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Let all rows learn, choose, and put the base back."""
        before = [self._values(place) for place in self.places]
        with learning_base(self.run, [place.site for place in self.places]) as weights:
            self._prime(list(weights.values()), batches)
            after = [self._values(place) for place in self.places]
        for place, old, new in zip(self.places, before, after, strict=True):
            self._choose(place, {name: new[name] - old[name] for name in old})

    def _values(self, place: Place) -> Mapping[str, Tensor]:
        return at_site(self.run.model, self.run.values.rewrite(place.site).site)

    def _prime(self, weights: Sequence[Tensor], batches: Sequence[Batch]) -> None:
        optimizer = torch.optim.AdamW(
            weights, lr=float(self.options["rate"]), weight_decay=0.0
        )
        for batch in islice(cycle(batches), int(self.options["steps"])):
            self.run.task_loss(batch).backward()
            optimizer.step()
            optimizer.zero_grad()

    @torch.no_grad()
    def _choose(self, place: Place, moved: Mapping[str, Tensor]) -> None:
        """Select the rows that moved most by the sum of their absolute values."""
        selection, rows, *biases = (
            self.run.values.tensor(place, i) for i in range(len(place.operands))
        )
        score = moved["W"].abs().sum(-1)
        if biases:
            score = score + moved["bias"].abs()
        order = score.argsort(dim=-1, descending=True, stable=True)
        chosen = order[..., : rows.shape[-2]].sort(dim=-1).values
        selection.zero_().scatter_(-2, chosen.unsqueeze(-2), 1.0)
        rows.copy_(moved["W"].take_along_dim(chosen.unsqueeze(-1), dim=-2))
        for bias in biases:
            bias.copy_(moved["bias"].take_along_dim(chosen, dim=-1))
