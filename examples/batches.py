"""Documents packed into windows of ids, and a model's loss on them.

In: a style and a part of the corpus.  Out: int64 [n windows, t bytes]; nats per byte.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

import torch

from bytes_text import encode
from corpus import documents

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EVALUATED_AT_ONCE = 16


def windows(
    style: str, seed: int, count: int, length: int, *, held_out: bool = False
) -> torch.Tensor:
    """[count, length] ids of documents set one behind the other."""
    texts = documents(style, seed, held_out=held_out)
    stream = chain.from_iterable(encode(text, closed=True) for text in texts)
    return torch.tensor(list(islice(stream, count * length))).view(count, length)


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, ids: torch.Tensor) -> float:
    """Mean negative log-likelihood in nats per byte; the model is set to evaluation."""
    model.eval()
    losses = [
        model(input_ids=part, labels=part).loss.item() * len(part)
        for part in ids.split(EVALUATED_AT_ONCE)
    ]
    return float(sum(losses) / len(ids))
