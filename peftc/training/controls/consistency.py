"""A second forward with numbers drawn apart, which should say the same as the first.

In: a forward of a model whose methods draw numbers before each step.  Out: its loss and
half the sum of KL(sg(q) || p) and KL(sg(p) || q), p and q what the two forwards predict
at labelled positions; sg stops gradients.  Where labels are numbers it is the squared
difference instead (AdaMix, Wang et al. 2022, arXiv 2205.12410).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from peftc.training.control import Control
from peftc.training.controls.redraw import Redraw
from peftc.training.labelled import of_positions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from peftc.training.control import Forward


class Consistency(Control):
    """Adds the term; all numbers that the run redraws are drawn apart for it."""

    def loss(self, forward: Forward) -> Tensor:
        """The loss with the term, from the first of the run's controls of this kind."""
        every = [c for c in self.run.controls if isinstance(c, Consistency)]
        weight = max(float(control.options["weight"]) for control in every)
        if not weight or every[0] is not self:
            return forward.loss
        with self._drawn_apart():
            other: Any = self.run.forward(forward.batch)
        labels = forward.batch.get("labels")
        one, two = (
            of_positions(self.run.model, logits, labels)
            for logits in (forward.outputs.logits, other.logits)
        )
        return forward.loss + weight * _difference(one, two, labels)

    @contextmanager
    def _drawn_apart(self) -> Iterator[None]:
        """With other tensors in the place of the drawn ones.

        The first forward still needs its own for the backward.
        """
        drawn: dict[str, Tensor] = {}
        for control in self.run.controls:
            if isinstance(control, Redraw):
                drawn |= control.values("apart")
        own = {path: self.run.values.named(path) for path in drawn}
        self._put(drawn)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for path, tensor in tensors.items():
            owner, _, name = path.rpartition(".")
            setattr(self.run.model.get_submodule(owner), name, tensor)


def _difference(one: Tensor, other: Tensor, labels: Tensor | None) -> Tensor:
    """The mean over positions of the symmetric divergence, in float32."""
    one, other = one.float(), other.float()
    if labels is not None and labels.is_floating_point():
        return F.mse_loss(one, other)
    p, q = F.log_softmax(one, -1), F.log_softmax(other, -1)
    there = F.kl_div(p, q.detach(), log_target=True, reduction="batchmean")
    back = F.kl_div(q, p.detach(), log_target=True, reduction="batchmean")
    return (there + back) / 2
