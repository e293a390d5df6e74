"""Learning from a teacher: the loss compares the predictions of two models.

In: the outputs of the model, and a teacher: the model itself without its methods, a
model in a folder, or one that the caller gave the run.  Out: (1 - alpha) of the loss so
far, and alpha of the divergence, over the positions with labels.  The teacher runs in
evaluation mode and without gradients.

b, t, v: batch, tokens, vocabulary.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F

from peftc.diagnostics.core import fail
from peftc.diagnostics.schedules import TeacherUnfit
from peftc.expr.evaluate import wide
from peftc.runtime.modes import evaluating
from peftc.sites.load import load
from peftc.training.control import Control
from peftc.training.labelled import of_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from peftc.training.control import Batch, Forward

BASE = "base"
"""The name of the model itself, without its methods."""

Divergence: TypeAlias = "Callable[[Tensor, Tensor, float], Tensor]"
"""Of student and teacher, and how far between."""


class Distill(Control):
    """Adds the divergence from a teacher."""

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Find the teacher; it is frozen and in evaluation mode from here on.

        Raises:
            PeftcError: PEFT699, or why the model in the folder cannot be loaded.
        """
        if not 0 <= self.options["alpha"] <= 1:
            raise self._unfit("`alpha` has to be from 0 to 1")
        if self.options["T"] < 1:
            raise self._unfit("`T` has to be 1 or more")
        name, model = self.options["teacher"], self.run.model
        if name == BASE:
            self.teacher = model
            return
        found = self.run.teachers.get(name)
        if found is None:
            if not Path(name).is_dir():
                raise self._unfit("no such folder, and none was given by this name")
            found = load(name).model.to(next(model.parameters()).device)
        self.teacher = found.requires_grad_(False).eval()

    def _unfit(self, problem: str) -> Exception:
        return fail(TeacherUnfit(teacher=self.options["teacher"], problem=problem))

    def loss(self, forward: Forward) -> torch.Tensor:
        """The loss with the teacher's part."""
        alpha = self.options["alpha"]
        if not alpha:
            return forward.loss
        part = self.divergence(forward.batch, forward.outputs.logits)
        whole: Tensor = (1 - alpha) * forward.loss + alpha * part.to(forward.loss.dtype)
        return whole

    def divergence(self, batch: Batch, logits: Tensor) -> Tensor:
        """T^2 times the mean divergence over the positions with labels."""
        labels = batch.get("labels")
        if labels is None:
            raise self._unfit("a batch has no `labels`")
        said = self.teacher_logits(batch)
        if said.shape != logits.shape:
            sizes = f"{said.shape[-1]} entries, the model {logits.shape[-1]}"
            raise self._unfit(f"its vocabulary has {sizes}")
        student, teacher = (
            wide(of_positions(self.run.model, z, labels)) for z in (logits, said)
        )
        kind, heat = self.options["kind"], float(self.options["T"])
        if kind == "mse":
            plain: Tensor = F.mse_loss(student, teacher)
            return plain
        soft, wanted = (F.log_softmax(z / heat, -1) for z in (student, teacher))
        found: Tensor = DIVERGENCES[kind](soft, wanted, self.options["beta"])
        return heat * heat * found

    @torch.no_grad()
    def teacher_logits(self, batch: Batch) -> Tensor:
        """What the teacher says."""
        inputs = dict(batch)
        if not getattr(self.run.model.config, "is_encoder_decoder", False):
            inputs.pop("labels")
        with ExitStack() as stack:
            if self.teacher is self.run.model:
                stack.enter_context(evaluating(self.teacher))
                stack.enter_context(self.run.handle.disabled())
            logits: Tensor = self.teacher(**inputs).logits
        return logits


# --- divergences of log probabilities [positions, v], averaged over positions ---------


def _kl(of: Tensor, other: Tensor) -> Tensor:
    """KL(of || other)."""
    return F.kl_div(other, of, reduction="batchmean", log_target=True)


def _between(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    mixed = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    return beta * _kl(teacher, mixed) + (1 - beta) * _kl(student, mixed)


DIVERGENCES: dict[str, Divergence] = {
    "fkl": lambda student, teacher, _: _kl(teacher, student),
    "rkl": lambda student, teacher, _: _kl(student, teacher),
    "jsd": _between,
}
