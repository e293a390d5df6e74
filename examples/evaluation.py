"""What the examples measure: windows of the corpus, a model's loss, its own text.

In: a style and a part of the corpus.  Out: int64 [n windows, t bytes]; the loss in
nats per byte; text.
"""

from __future__ import annotations

from itertools import chain, islice
from typing import TYPE_CHECKING

import torch

from bytes_text import decode, encode
from corpus import documents

if TYPE_CHECKING:
    from typing import Any

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


def sample(model: Any, prompt: str, *, temperature: float = 0.7, seed: int = 0) -> str:
    """`prompt` and what the model makes of it; the prompt is not a closed document."""
    torch.manual_seed(seed)
    ids = torch.tensor([encode(prompt)])
    drawn: torch.Tensor = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=temperature,
    )
    return decode(drawn[0].tolist())
