"""Peers start from the same values and compute the same, before they are timed.

In: models of one case by the names of peers, a batch.  Out: how far losses and
gradients lie apart; or a diagnostic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftc.bench.links import links
from peftc.bench.peers import FROZEN, FROZEN_COMPILED, PEFT_HALF
from peftc.bench.tasks import loss
from peftc.diagnostics.bench import PeersDisagree
from peftc.diagnostics.core import fail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.bench.cases import Case
    from peftc.bench.links import Link
    from peftc.bench.tasks import Batch

Apart = dict[str, dict[str, float]]
"""By peer: the relative difference of `loss`, and of `gradient` where there is one."""

UNTRAINED = (FROZEN, FROZEN_COMPILED)
NOISE = 0.02
"""Of values at the start: where updates are zero, most gradients are, too."""
LIMITS = {
    "float32": {"loss": 1e-5, "gradient": 1e-3},
    "bfloat16": {"loss": 1e-2, "gradient": 1e-1},
}
"""What differences are rounding; gradients pass through all layers."""


def start_alike(models: Mapping[str, Any], case: Case, seed: int) -> str:
    """Give all the same values, away from zero; returns whose they are."""
    trained = {n: m for n, m in models.items() if n not in UNTRAINED}
    reference, *_ = (*trained, "")
    if trained:
        _disturb(trained[reference], seed)
    for name, model in trained.items():
        for link in links(trained[reference], model, case) if name != reference else ():
            link.copy()
    return reference


def _disturb(model: Any, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.data.add_(noise.to(parameter), alpha=NOISE)


def check(
    models: Mapping[str, Any], case: Case, batch: Batch, row: str, dtype: str
) -> Apart:
    """Compare each peer with the first that trains.

    Raises:
        PeftcError: PEFT710 for the first difference that is no rounding.
    """
    trained = {n: m for n, m in models.items() if n not in UNTRAINED}
    if not trained:
        return {}
    reference, *others = trained
    losses = {name: _step(model, batch) for name, model in trained.items()}
    found: Apart = {}
    for name in others:
        found[name] = {"loss": _apart(losses[name], losses[reference])}
        pairs = links(trained[reference], trained[name], case)
        if pairs and name != PEFT_HALF:  # its gradients are rounded to 8 bits
            found[name]["gradient"] = _gradients_apart(pairs)
        for what, difference in found[name].items():
            limit = LIMITS[dtype][what]
            if not difference <= limit:
                raise fail(
                    PeersDisagree(
                        row=row,
                        what=what,
                        peer=name,
                        reference=reference,
                        difference=f"{difference:.2g}",
                        limit=f"{limit:g}",
                    )
                )
    return found


def _step(model: Any, batch: Batch) -> Tensor:
    model.train().zero_grad(set_to_none=True)
    value = loss(model, batch)
    value.backward()
    return value.detach()


def _gradients_apart(pairs: Sequence[Link]) -> float:
    """Over all that corresponds: the norm of the differences by the norm."""
    found = [pair for link in pairs if (pair := link.gradients()) is not None]
    if len(found) < len(pairs):
        return float("inf")
    ours, theirs = (
        torch.cat([side.float().flatten() for side in sides])
        for sides in zip(*found, strict=True)
    )
    return _apart(theirs, ours)


def _apart(value: Tensor, other: Tensor) -> float:
    size = torch.linalg.vector_norm(other.float())
    return float(torch.linalg.vector_norm(value.float() - other.float()) / size)
