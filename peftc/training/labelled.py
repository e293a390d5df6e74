"""Which predictions of a model its labels are about.

In: a model, and the labels of a batch.  Out: the positions whose predictions its loss
is a mean over: those with a label that is not ignored; in models that learn the next
token, the position before each.  Labels of whole samples count one by one, and so do
those that are numbers.

b, t, c: batch, tokens, classes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from peftc.runtime.insertion import IGNORED

NEXT = (None, "ForCausalLM", "ForConditionalGeneration")
"""Kinds of loss that transformers computes of the next token: its own name for that of
a model's class; None for a class of which it knows no other."""


def learns_next(model: Any) -> bool:
    """Whether a label is about the prediction one position before it.

    A decoder behind an encoder is given its labels one position later already.
    """
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        return False
    return getattr(model, "loss_type", None) in NEXT


def counted(model: Any, labels: torch.Tensor) -> torch.Tensor:
    """Where predictions have a label that counts: a mask of the shape of `labels`, [b,
    t] or [b], over the positions of predictions."""
    if labels.is_floating_point():
        return torch.ones_like(labels, dtype=torch.bool)
    if labels.dim() > 1 and learns_next(model):
        labels = F.pad(labels[..., 1:], (0, 1), value=IGNORED)
    return labels != IGNORED


def count(model: Any, labels: object) -> int:
    """How many predictions a model's mean loss is a mean over; 1 where labels are
    numbers or no tensor."""
    if not isinstance(labels, torch.Tensor) or labels.is_floating_point():
        return 1
    return int(counted(model, labels).sum())


def of_positions(
    model: Any, predictions: torch.Tensor, labels: torch.Tensor | None
) -> torch.Tensor:
    """The predictions [..., c] that count, as [positions, c]: all of them if `labels`
    are not one for each."""
    if labels is None or predictions.shape[:-1] != labels.shape:
        return predictions.flatten(0, -2)
    return predictions[counted(model, labels)]
