"""One of several things that a batch is about.

In: a vector with a place for each, and batches that say by an entry which one they are
about.  Out: the vector is one there and zero elsewhere, in training and evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import BatchEntry
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.training.control import Batch


class Choose(Control):
    """Reads its entry of every batch; the model does not get it."""

    @property
    def entries(self) -> Sequence[str]:
        """The one that chooses."""
        return (str(self.options["by"]),)

    def before_batch(self, batch: Batch) -> None:
        """Set the vectors.

        Raises:
            PeftcError: PEFT689 if the batch does not say it, or says several things.
        """
        chosen = self._chosen(batch.get(self.options["by"]))
        with torch.no_grad():
            for place in self.places:
                vector = self.run.values.tensor(place)
                if not 0 <= chosen < vector.shape[-1]:
                    raise self._unfit(f"{chosen} is none of {vector.shape[-1]}")
                vector.zero_()[..., chosen] = 1

    def _chosen(self, said: object) -> int:
        """The number that an entry is: alone, or the same for all samples."""
        if said is None:
            raise self._unfit("it has no such entry")
        numbers = torch.as_tensor(said).flatten().unique()
        if numbers.numel() != 1 or numbers.is_floating_point():
            raise self._unfit("the samples of a batch are about one number")
        return int(numbers)

    def _unfit(self, problem: str) -> Exception:
        return fail(BatchEntry(entry=self.options["by"], problem=problem))
