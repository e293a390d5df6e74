"""Comparing layers of a student with layers of its teacher.

In: pairs of layers, and what two models gave.  Out: the weighted sum over pairs of the
mean squared difference of hidden states, or of the divergence of attention; and for
hidden states of different widths a trained projection, a matrix [d_T, d_S].

Layers are counted from 1; of hidden states, 0 is what the first layer reads.  Models
with an encoder and a decoder are compared in the decoder.

b, t, d, h, s: batch, tokens, width, heads, keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from peftc.diagnostics.core import fail
from peftc.diagnostics.schedules import LayersUnfit
from peftc.expr.evaluate import wide
from peftc.runtime.modes import evaluating
from peftc.sites.inputs import example_inputs
from peftc.training.labelled import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.expr.pairs import Pair
    from peftc.training.control import Batch

STUDENT, TEACHER = "model", "teacher"


@dataclass(frozen=True)
class Compared:
    """What layers give that is compared, under an option of this name."""

    option: str
    output: str
    """As transformers calls it."""
    first: int
    """The number of the first."""

    @property
    def asked(self) -> dict[str, bool]:
        """What a forward has to be told to give it."""
        return {f"output_{self.output}": True}

    def of(self, who: str, outputs: Any, layer: int) -> Tensor:
        """What a layer gave.

        Raises:
            PeftcError: PEFT686 if the model gives none, or has no such layer.
        """
        every = outputs.get(f"decoder_{self.output}") or outputs.get(self.output) or ()
        if not every or every[0] is None:
            named = self.output.replace("_", " ")
            hint = EAGER if self is ATTENTION else ""
            raise self.unfit(f"the {who} gives no {named}", hint)
        last = self.first + len(every) - 1
        number = layer + last + 1 if layer < 0 else layer
        if not self.first <= number <= last:
            problem = f"the {who} has no layer {layer}"
            raise self.unfit(problem, f"its layers are {self.first} to {last}")
        found: Tensor = every[number - self.first]
        return found

    def pair(self, one: Any, other: Any, pair: Pair) -> tuple[Tensor, Tensor]:
        """What a layer of the student and one of the teacher gave."""
        student = self.of(STUDENT, one, pair.student)
        return student, self.of(TEACHER, other, pair.teacher)

    def unfit(self, problem: str, hint: str = "") -> Exception:
        """What to raise."""
        return fail(LayersUnfit(option=self.option, problem=problem, hint=hint))


HIDDEN = Compared("hidden", "hidden_states", 0)
ATTENTION = Compared("attn", "attentions", 1)
EAGER = 'load the model with `attn_implementation="eager"`'


def seen(model: Any, asked: Mapping[str, Any]) -> Any:
    """What a model gives for made-up inputs, in evaluation mode."""
    with torch.no_grad(), torch.random.fork_rng(), evaluating(model):
        return model(**example_inputs(model), **asked)


def widths(one: Any, other: Any, pairs: Sequence[Pair]) -> list[tuple[int, int]]:
    """The widths of the hidden states of each pair, the teacher's first."""
    found = [HIDDEN.pair(one, other, pair) for pair in pairs]
    return [(teacher.shape[-1], student.shape[-1]) for student, teacher in found]


def positions(model: Any, batch: Batch, shape: torch.Size) -> Tensor:
    """Which of the positions [b, t] count: those whose predictions have a label; where
    labels are not of positions, those that are no padding."""
    labels, mask = batch.get("labels"), batch.get("attention_mask")
    if isinstance(labels, torch.Tensor) and labels.shape == shape:
        return counted(model, labels)
    if isinstance(mask, torch.Tensor) and mask.shape == shape:
        return mask.bool()
    like = labels if isinstance(labels, torch.Tensor) else mask
    device = like.device if like is not None else None
    return torch.ones(shape, dtype=torch.bool, device=device)


def hidden(
    student: Tensor, teacher: Tensor, counting: Tensor, projection: Tensor | None
) -> Tensor:
    """The mean squared difference of states [b, t, d] where they count.

    Raises:
        PeftcError: PEFT686 if they are of different tokens.
    """
    if student.shape[:2] != teacher.shape[:2]:
        problem = "the teacher's states are of other tokens"
        raise HIDDEN.unfit(problem, "choose a teacher with the same tokens")
    one, other = wide(student[counting]), wide(teacher[counting])
    if projection is not None:
        one = F.linear(one, projection.to(one.dtype))
    return (one - other).square().sum() / max(1, one.numel())


def attention(student: Tensor, teacher: Tensor, counting: Tensor) -> Tensor:
    """The mean over heads and tokens that count of KL(teacher || student), of
    probabilities [b, h, t, s].

    Raises:
        PeftcError: PEFT686 if they have other heads or keys, or do not sum to 1.
    """
    if student.shape != teacher.shape:
        sizes = (" x ".join(map(str, p.shape[1:])) for p in (teacher, student))
        problem = "the teacher has {} heads, tokens and keys, the model {}"
        raise ATTENTION.unfit(problem.format(*sizes), "compare models that agree in it")
    one, other = (wide(p.transpose(1, 2)[counting]) for p in (student, teacher))
    _check_whole(one)
    log = one.clamp(min=torch.finfo(one.dtype).tiny).log()
    rows = max(1, one.shape[0] * one.shape[1])
    return F.kl_div(log, other, reduction="sum") / rows


def _check_whole(probabilities: Tensor) -> None:
    """Refuse what dropout or a sink has taken from."""
    sums = probabilities.detach().sum(-1)
    if sums.numel() and (sums - 1).abs().max() > 0.02:
        problem = "the probabilities of the model's attention do not sum to 1"
        raise ATTENTION.unfit(problem, "set the dropout of attention to 0")
