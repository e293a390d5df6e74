"""Masks: which elements of a tensor are there.

In: a buffer that multiplies a tensor, and that tensor.  Out: the buffer with exactly as
many ones as the sparsity leaves, at the largest scores: before training, or by and by
on Zhu and Gupta's cubic schedule (arXiv 1710.01878).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.masks import NoScores, NotInGroups
from peftc.diagnostics.training import DegenerateScores
from peftc.runtime.modes import evaluating
from peftc.training import choice
from peftc.training.control import Control
from peftc.training.scores import NEED_DATA, SCORES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from peftc.plan.training import ControlPlan, Place
    from peftc.training.control import Batch, State
    from peftc.training.run import Run


class Mask(Control):
    """Sets masks by scores."""

    def __init__(self, plan: ControlPlan, run: Run) -> None:
        super().__init__(plan, run)
        self.score = str(self.options["score"])
        self.sparsity = float(self.options["sparsity"])
        self.until = float(self.options["until"])
        self.gathered: list[Tensor] = []
        self.warmup = int(self.options["warmup"])
        self.batches: Sequence[Batch] = ()
        """What the masks are chosen with after the warm-up."""

    @property
    def needs_data(self) -> bool:
        """Whether the score looks at the model's gradients or inputs."""
        return self.score in NEED_DATA and not self.gradual

    @property
    def gradual(self) -> bool:
        """Whether the masks are set while training."""
        return self.until > 0 or self.score == "movement"

    @property
    def places(self) -> Sequence[Place]:
        """Its places, each mask once however many sites share it."""
        found = {self.run.values.path(p.site, p.operands[0]): p for p in self._all}
        return list(found.values())

    @property
    def _all(self) -> Sequence[Place]:
        return super().places

    @property
    def masks(self) -> list[Tensor]:
        """The masks of all places."""
        return [self.run.values.tensor(place) for place in self.places]

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Set the masks for good, unless they are set while training."""
        if self.gradual:
            self.gathered = [torch.zeros_like(mask) for mask in self.masks]
        elif self.warmup:
            self.batches = batches
        else:
            self._set(self._scores(batches), self.sparsity)

    def _scores(self, batches: Sequence[Batch]) -> list[Tensor]:
        with evaluating(self.run.model):
            scores = SCORES[self.score](self.run, self.places, batches)
        empty = [not bool(score.any()) for score in scores]
        if all(empty) and self.options["scope"] == "global":
            raise fail(NoScores(score=self.score))
        if any(empty) and self.options["scope"] == "global":
            place = self.places[empty.index(True)]
            mask = self.run.values.path(place.site, place.operands[0])
            raise fail(DegenerateScores(mask=mask, score=self.score))
        if not any(empty):
            return scores
        drawn = SCORES["random"](self.run, self.places, ())
        parts = zip(scores, drawn, empty, strict=True)
        return [other if none else score for score, other, none in parts]

    # --- while training --------------------------------------------------------------

    def before_forward(self) -> None:
        """Let masks have gradients, from which movement is read; choose after the
        warm-up."""
        if self.warmup and self.run.step == self.warmup and not self.gradual:
            self._set(self._scores(self.batches), self.sparsity)
        if self.score == "movement":
            for mask in self.masks:
                mask.requires_grad_(True)

    def after_backward(self) -> None:
        """Gather movement: a weight that moves away from zero has a negative one."""
        for total, mask in zip(self.gathered, self.masks, strict=False):
            if mask.grad is not None:
                total -= mask.grad
                mask.grad = None

    def after_optimizer(self) -> None:
        """Set the masks to the sparsity of this step, where the schedule says so."""
        if self.gradual and (
            self._done % int(self.options["every"]) == 0 or self._last
        ):
            self._set(self._now(), self._reached())

    def finalize(self) -> None:
        """Masks are buffers like others again."""
        for mask in self.masks:
            mask.requires_grad_(False)

    @property
    def _done(self) -> int:
        return self.run.step + 1

    @property
    def _end(self) -> int:
        """The step at which the whole sparsity is reached."""
        steps = self.run.steps(self)
        return max(1, round((self.until or 1.0) * steps))

    @property
    def _last(self) -> bool:
        return self._done == self._end

    def _reached(self) -> float:
        """S (1 - (1 - t / end)^3) after t steps."""
        left = 1 - min(1.0, self._done / self._end)
        return self.sparsity * (1 - left**3)

    def _now(self) -> list[Tensor]:
        if self.score == "movement":
            return self.gathered
        return SCORES[self.score](self.run, self.places, ())

    # --- choosing --------------------------------------------------------------------

    @torch.no_grad()
    def _set(self, scores: list[Tensor], sparsity: float) -> None:
        for mask, chosen in zip(
            self.masks, self._chosen(scores, sparsity), strict=True
        ):
            mask.copy_(chosen)

    def _chosen(self, scores: list[Tensor], sparsity: float) -> list[Tensor]:
        if self.score == "er":
            return choice.by_shape(scores, 1 - sparsity)
        if group := int(self.options["of"]):
            self._check_groups(scores, group)
            return [choice.by_group(score, group, sparsity) for score in scores]
        scope = self.options["scope"]
        if scope == "global":
            count = sum(score.numel() for score in scores)
            keep = count - choice.removed(sparsity, count)
            return choice.together(scores, keep, int(self.options["least"]))
        return {"local": choice.by_tensor, "row": choice.by_row}[str(scope)](
            scores, sparsity
        )

    def _check_groups(self, scores: list[Tensor], group: int) -> None:
        for score, place in zip(scores, self.places, strict=True):
            if score.shape[-1] % group:
                size = score.shape[-1]
                raise fail(NotInGroups(site=place.site, size=size, group=group))

    # --- state -----------------------------------------------------------------------

    def state(self) -> State:
        """What was gathered so far; the masks are the model's own."""
        return {str(index): total for index, total in enumerate(self.gathered)}

    def load(self, state: State) -> None:
        """Go on gathering."""
        self.gathered = [state[str(index)] for index in range(len(state))]
