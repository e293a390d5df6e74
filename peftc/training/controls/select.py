"""A fixed number of elements of the base's weights, of all sites together.

In: for each site a vector and the places that its elements belong to.  Out: as many
places as the share of all elements is, at the largest scores, and vectors of just that
length at each site: the model goes on with a plan that has these sizes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.masks import NothingKept
from peftc.plan.resize import resized
from peftc.training import choice
from peftc.training.base import learning_base, oriented
from peftc.training.control import Control
from peftc.training.labelled import count as labelled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from peftc.plan.training import Place
    from peftc.training.control import Batch


class Select(Control):
    """Chooses places before training."""

    @property
    def needs_data(self) -> bool:
        """Whether the score is made of gradients."""
        return str(self.options["score"]) == "fisher"

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Choose, and give each site what it keeps."""
        scores = self._scores(batches)
        count = sum(score.numel() for score in scores)
        share = float(self.options["keep"])
        keep = choice.removed(share, count)
        if not keep:
            raise fail(NothingKept(keep=share, count=count))
        masks = choice.together(scores, keep)
        self._replan([mask.flatten().nonzero().flatten() for mask in masks])

    def _replan(self, chosen: list[Tensor]) -> None:
        """Go on with a plan in which each site has as many elements as it keeps."""
        values, changes = {}, {}
        for place, places in zip(self.places, chosen, strict=True):
            instance = place.operands[0].rpartition(".")[0]
            size = str(self.options["size"])
            changes[place.site, instance] = {size: len(places)}
            for operand, value in zip(place.operands, (0, places), strict=True):
                path = self.run.values.path(place.site, operand)
                values[path] = torch.as_tensor(value).expand(len(places))
        self.run.replan(resized(self.run.handle.plan, changes), values)
        kept = zip(self.places, chosen, strict=True)
        left = tuple(place for place, places in kept if len(places))
        self.plan = replace(self.plan, places=left)

    # --- scores ----------------------------------------------------------------------

    def _scores(self, batches: Sequence[Batch]) -> list[Tensor]:
        """A score for each element, [out, in] at each site."""
        if self.options["score"] == "fisher":
            return self._fisher(batches)
        sites = [self.run.values.rewrite(place.site).site for place in self.places]
        weights = [self.run.model.get_parameter(site.weight) for site in sites]
        found = [
            oriented(self.run.model, site, weight.detach()).abs()
            for site, weight in zip(sites, weights, strict=True)
        ]
        if self.options["score"] == "random":
            return [self._random(p, s) for p, s in zip(self.places, found, strict=True)]
        return found

    def _random(self, place: Place, like: Tensor) -> Tensor:
        stream = self.run.generator("select", place.site)
        return torch.rand(like.shape, generator=stream).to(like.device)

    def _fisher(self, batches: Sequence[Batch]) -> list[Tensor]:
        """The mean over examples of squared gradients of their log-likelihoods."""
        sites = [place.site for place in self.places]
        every = list(examples(batches))
        with learning_base(self.run, sites) as weights:
            total = {path: torch.zeros_like(w).float() for path, w in weights.items()}
            for example in every:
                learned = labelled(self.run.model, example["labels"])
                if not learned:
                    continue
                loss = self.run.task_loss(example) * learned
                grads = torch.autograd.grad(loss, list(weights.values()))
                for path, grad in zip(weights, grads, strict=True):
                    total[path] += grad.float().square()
        found = []
        for place in self.places:
            site = self.run.values.rewrite(place.site).site
            found.append(
                oriented(self.run.model, site, total[site.weight]) / len(every)
            )
        return found


def examples(batches: Sequence[Batch]) -> Iterator[dict[str, Any]]:
    """The samples of batches, one at a time, each as a batch."""
    for batch in batches:
        count = len(next(iter(batch.values())))
        for index in range(count):
            yield {
                name: value[index : index + 1] if torch.is_tensor(value) else value
                for name, value in batch.items()
            }
