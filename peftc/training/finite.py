"""A loss that is infinite or no number stops the training, and says where it began.

In: the loss of a batch that a run has computed.  Out: nothing, or an error with the
step, the first place of the model whose value is not finite, and the checkpoint that
was kept.  The place is found by running the batch once more, operation by operation.
"""

from __future__ import annotations

import inspect
import re
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.runtime import NotFiniteHere
from peftc.diagnostics.training import LossNotFinite
from peftc.runtime.backend import WATCHED
from peftc.runtime.entry import SubEntry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from peftc.training.control import Batch

_CHECKPOINT = re.compile(r"(?:checkpoint|step)-(\d+)")


def check_loss(
    model: nn.Module, batch: Batch, loss: torch.Tensor, step: int, folder: str = ""
) -> None:
    """Raise if a loss is not finite.

    Args:
        step: of the optimizer, from 1; `folder` has the checkpoints, if there are any.

    Raises:
        PeftcError: PEFT688.
    """
    if torch.isfinite(loss.detach()).all():
        return
    raise fail(
        LossNotFinite(
            step=step,
            loss=str(loss.detach().sum().item()),
            place=_sentence("it begins with", first_place(model, batch)),
            kept=_sentence("the last checkpoint is", last_checkpoint(folder)),
        )
    )


def _sentence(start: str, rest: str) -> str:
    return f"{start} {rest}" if rest else ""


def first_place(model: nn.Module, batch: Batch) -> str:
    """Where a forward makes the first value that is not finite; "" if nowhere."""
    known = inspect.signature(model.forward).parameters
    given = {name: value for name, value in batch.items() if name in known}
    try:
        with _watching(model), torch.no_grad(), torch.random.fork_rng():
            model(**given)
    except PeftcError as error:
        (found,) = error.diagnostics
        if isinstance(found, NotFiniteHere):
            return f"{found.what} at {found.place}"
        raise
    return ""


@contextmanager
def _watching(model: Any) -> Iterator[None]:
    """With every forward that is captured run operation by operation."""
    entries = [e for e in model.peftc.entries if not isinstance(e, SubEntry)]
    before = [entry.module.__dict__["forward"] for entry in entries]
    for entry in entries:
        watched = replace(entry.recipe, backend=WATCHED)
        entry.module.__dict__["forward"] = entry.by(watched)
    try:
        yield
    finally:
        for entry, forward in zip(entries, before, strict=True):
            entry.module.__dict__["forward"] = forward


def last_checkpoint(folder: str) -> str:
    """The checkpoint of the highest step in a folder; "" if it has none."""
    place = Path(folder)
    found = place.iterdir() if folder and place.is_dir() else ()
    steps = {int(m[1]): p for p in found if (m := _CHECKPOINT.fullmatch(p.name))}
    return f"`{steps[max(steps)]}`" if steps else ""
