"""Learning from a teacher: the loss compares the predictions of two models.

In: the outputs of the model and a teacher (`peftc.training.teacher`).  Out: (1 - alpha)
of the loss so far, and alpha of the divergence over the positions with labels; and for
pairs of layers how far their hidden states or attentions are apart.

v: vocabulary.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peftc.expr.pairs import pairs
from peftc.training.control import Control
from peftc.training.divergence import SQUARES, Divergence
from peftc.training.labelled import of_positions
from peftc.training.layers import (
    ATTENTION,
    HIDDEN,
    attention,
    hidden,
    positions,
    seen,
    widths,
)
from peftc.training.teacher import Teacher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.plan.training import ControlPlan
    from peftc.training.control import Batch, Forward
    from peftc.training.run import Run


class Distill(Control):
    """Adds the divergence from a teacher."""

    def __init__(self, plan: ControlPlan, run: Run) -> None:
        super().__init__(plan, run)
        self.hidden, self.attention = (
            pairs(str(self.options[option.option])) for option in (HIDDEN, ATTENTION)
        )
        self.projections: dict[str, nn.Parameter] = {}

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """A projection for each pair of hidden states that has one."""
        return self.projections

    @property
    def asks(self) -> Mapping[str, Any]:
        """The states of layers, if they are compared."""
        asked = HIDDEN.asked if self.hidden else {}
        return {**asked, **(ATTENTION.asked if self.attention else {})}

    # --- before training -------------------------------------------------------------

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Find the teacher, look at both models' layers, and draw projections.

        Raises:
            PeftcError: PEFT699 or PEFT686, or what `Teacher` raises.
        """
        self.teacher = Teacher(self.run, str(self.options["teacher"]))
        self._check()
        numbers = (self.options["T"], self.options["beta"], self.options["topk"])
        self.divergence_of = Divergence(str(self.options["kind"]), *numbers)
        if self.asks:
            self._look()

    def _check(self) -> None:
        if not 0 <= self.options["alpha"] <= 1:
            raise self.teacher.unfit("`alpha` has to be from 0 to 1")
        if self.options["T"] < 1:
            raise self.teacher.unfit("`T` has to be 1 or more")
        if self.options["topk"] and self.options["kind"] == SQUARES:
            raise self.teacher.unfit("`topk` is of probabilities, not for `kind=mse`")

    def _look(self) -> None:
        """See that all layers are there, and how wide they are."""
        with self.run.handle.disabled():
            one = seen(self.run.model, self.asks)
        other = one
        if self.teacher.other is not None:
            other = seen(self.teacher.model, self.asks)
        for pair in self.attention:
            ATTENTION.pair(one, other, pair)
        for index, sizes in enumerate(widths(one, other, self.hidden)):
            if sizes[0] != sizes[1] or self.options["proj"]:
                self.projections[str(index)] = self._drawn(index, sizes)

    def _drawn(self, index: int, sizes: tuple[int, int]) -> nn.Parameter:
        """A projection as a linear without bias begins."""
        like = next(self.run.model.parameters())
        value = torch.empty(sizes)
        stream = self.run.generator(self.plan.name, index)
        nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=stream)
        dtype = torch.promote_types(like.dtype, torch.float32)
        return nn.Parameter(value.to(like.device, dtype))

    def finalize(self) -> None:
        """Projections are for training only."""
        self.projections = {}

    # --- the loss --------------------------------------------------------------------

    def loss(self, forward: Forward) -> torch.Tensor:
        """The loss with the teacher's part."""
        alpha, loss = self.options["alpha"], forward.loss
        if not (alpha or self.asks):
            return loss
        said = self.teacher.outputs(forward.batch, self.asks)
        if alpha:
            part = self.divergence(forward.batch, forward.outputs.logits, said.logits)
            loss = (1 - alpha) * loss + alpha * part.to(loss.dtype)
        for part in self._layers(forward, said):
            loss = loss + part.to(loss.dtype)
        return loss

    def divergence(self, batch: Batch, logits: Tensor, said: Tensor) -> Tensor:
        """T^2 times the mean divergence over the positions with labels."""
        labels = batch.get("labels")
        if labels is None:
            raise self.teacher.unfit("a batch has no `labels`")
        if labels.is_floating_point() and self.options["kind"] != SQUARES:
            raise self.teacher.unfit("labels are numbers: compare with `kind=mse`")
        student, teacher = (
            of_positions(self.run.model, z, labels) for z in self._alike(logits, said)
        )
        return self.divergence_of.mean(student, teacher)

    def _alike(self, logits: Tensor, said: Tensor) -> tuple[Tensor, Tensor]:
        """The logits [..., v] of both, over the vocabulary that they share."""
        if self.options["vocab"] == "common":
            size = min(logits.shape[-1], said.shape[-1])
            logits, said = logits[..., :size], said[..., :size]
        if said.shape != logits.shape:
            sizes = f"{said.shape[-1]} entries, the model {logits.shape[-1]}"
            raise self.teacher.unfit(f"its vocabulary has {sizes}")
        return logits, said

    def _layers(self, forward: Forward, said: Any) -> list[Tensor]:
        """The weighted terms of all pairs of layers."""
        found = []
        for index, pair in enumerate(self.hidden):
            one, other = HIDDEN.pair(forward.outputs, said, pair)
            counting = positions(self.run.model, forward.batch, one.shape[:2])
            projection = self.projections.get(str(index))
            found.append(pair.weight * hidden(one, other, counting, projection))
        for pair in self.attention:
            one, other = ATTENTION.pair(forward.outputs, said, pair)
            shape = torch.Size((one.shape[0], one.shape[2]))
            counting = positions(self.run.model, forward.batch, shape)
            found.append(pair.weight * attention(one, other, counting))
        return found
