"""How many graphs one model makes of its forward, over all that is done with it.

In: a compiled model and a batch.  Out: the number of captures so far after each state.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from peftc.bench.tasks import loss
from peftc.diagnostics.core import PeftcError

if TYPE_CHECKING:
    from peftc.bench.tasks import Batch


def graphs(model: Any, batch: Batch) -> dict[str, int]:
    """Train, evaluate, switch the methods off, merge, and train once more."""
    found: dict[str, int] = {}

    def note(state: str) -> None:
        found[state] = model.peftc.captures.count

    _run(model.train(), batch, trains=True)
    note("train")
    _run(model.eval(), batch)
    note("evaluate")
    with model.peftc.disabled():
        _run(model, batch)
    note("disabled")
    if _merges(model):
        _run(model, batch)
        note("merged")
        model.peftc.unmerge()
    _run(model.train(), batch, trains=True)
    note("train again")
    return found


def _merges(model: Any) -> bool:
    try:
        model.peftc.merge()
    except PeftcError:
        return False
    return True


def _run(model: Any, batch: Batch, *, trains: bool = False) -> None:
    with nullcontext() if trains else torch.no_grad():
        loss(model, batch) if trains else model(**batch)
