"""How far two models are apart in what they predict.

In: the logits of a student and a teacher at some positions.  Out: T^2 times the mean
divergence of their softened predictions, or the mean squared difference of the logits.
With `topk` all but the teacher's k likeliest classes count as one.  Where there are
many classes, some positions are compared at a time, and again in the backward, so that
no probabilities of all positions are kept.

n, c: positions, classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from peftc.expr.evaluate import wide

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Measure: TypeAlias = "Callable[[Tensor, Tensor, float], Tensor]"
"""Of log probabilities of student and teacher, and how far between: their sum."""

AT_ONCE = 2**24
"""Logits that are compared at a time."""
SQUARES = "mse"
"""The kind that compares logits and no probabilities."""


@dataclass(frozen=True)
class Divergence:
    """A kind of divergence, its temperature, and what it looks at."""

    kind: str
    heat: float
    beta: float = 0.5
    topk: int = 0
    at_once: int = AT_ONCE

    def mean(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of logits [n, c], in float32 or wider: a scalar, 0 without positions."""
        rows = max(1, self.at_once // student.shape[-1])
        if len(student) <= rows:
            return self._sum(student, teacher) / max(1, len(student))
        pairs = zip(student.split(rows), teacher.split(rows), strict=True)
        return torch.stack([self._again(*pair) for pair in pairs]).sum() / len(student)

    def _again(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The sum, computed once more in the backward."""
        found: Tensor = checkpoint(
            self._sum, student, teacher, use_reentrant=False, preserve_rng_state=False
        )
        return found

    def _sum(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = wide(student), wide(teacher)
        if self.kind == SQUARES:
            return (student - teacher).square().mean(-1).sum()
        soft, wanted = (F.log_softmax(z / self.heat, -1) for z in (student, teacher))
        if 0 < self.topk < student.shape[-1]:
            best = wanted.topk(self.topk).indices
            soft, wanted = _lumped(soft, best), _lumped(wanted, best)
        return self.heat**2 * MEASURES[self.kind](soft, wanted, self.beta)


def _lumped(logs: Tensor, best: Tensor) -> Tensor:
    """Log probabilities [n, c] of the classes `best` [n, k] and of all others together:
    [n, k + 1]."""
    rest = logs.scatter(-1, best, -math.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logs.gather(-1, best), rest], -1)


def _kl(of: Tensor, other: Tensor) -> Tensor:
    """KL(of || other)."""
    return F.kl_div(other, of, reduction="sum", log_target=True)


def _between(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """beta KL(teacher || m) + (1 - beta) KL(student || m), m between them by beta."""
    share = math.log(beta) if beta else -math.inf
    mixed = torch.logaddexp(teacher + share, student + math.log1p(-beta))
    return beta * _kl(teacher, mixed) + (1 - beta) * _kl(student, mixed)


MEASURES: dict[str, Measure] = {
    "fkl": lambda student, teacher, _: _kl(teacher, student),
    "rkl": lambda student, teacher, _: _kl(student, teacher),
    "jsd": _between,
}
