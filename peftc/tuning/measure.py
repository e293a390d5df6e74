"""What a model is worth on data: loss, perplexity, accuracy, exact match.

In: a model and examples.  Out: `Measures`.  Every token counts once, however batches
are cut.  An answer is exact if every token of it is the most likely one after those
before it: that is the case if and only if greedy generation writes that answer.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from peftc.tuning.examples import IGNORED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftc.tuning.examples import Collate, Example


@dataclass(frozen=True)
class Measures:
    """What was measured on some samples.

    `loss` in nats for each target; `accuracy` the share of targets that are the most
    likely; `exact` the share of samples of which all targets are.  `perplexity` is None
    where targets are classes.
    """

    samples: int
    targets: int
    loss: float
    accuracy: float
    exact: float
    perplexity: float | None

    def record(self) -> dict[str, Any]:
        """As plain data; what is no number is null."""
        return {
            name: None
            if isinstance(value, float) and not math.isfinite(value)
            else value
            for name, value in asdict(self).items()
        }


@dataclass
class _Sums:
    loss: float = 0.0
    right: int = 0
    targets: int = 0
    exact: int = 0


@torch.no_grad()
def measure(
    model: Any, data: Sequence[Example], collate: Collate, batch: int
) -> Measures:
    """Measure a model, in evaluation mode, whatever mode it is in."""
    sums = _Sums()
    with _evaluating(model):
        for at in range(0, len(data), batch):
            _add(sums, model, collate(data[at : at + batch]), collate.task)
    loss = sums.loss / max(1, sums.targets)
    classes = collate.task == "classification"
    perplexity = None if classes else math.exp(loss) if loss < 700 else math.inf
    accuracy, exact = sums.right / max(1, sums.targets), sums.exact / len(data)
    return Measures(len(data), sums.targets, loss, accuracy, exact, perplexity)


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def _add(sums: _Sums, model: Any, batch: dict[str, torch.Tensor], task: str) -> None:
    on_device = {name: t.to(model.device) for name, t in batch.items()}
    targets = on_device["labels"]
    if task != "seq2seq":
        del on_device["labels"]
    logits = model(**on_device).logits
    if task == "causal":
        logits, targets = logits[:, :-1], targets[:, 1:]
    elif task == "classification":
        logits, targets = logits.unsqueeze(1), targets.unsqueeze(1)
    real = targets != IGNORED
    flat = logits.float().flatten(0, 1), targets.flatten()
    lost = F.cross_entropy(*flat, ignore_index=IGNORED, reduction="sum")
    right = (logits.argmax(-1) == targets) & real
    sums.loss += float(lost)
    sums.right += int(right.sum())
    sums.targets += int(real.sum())
    sums.exact += int((right == real).all(-1).sum())
