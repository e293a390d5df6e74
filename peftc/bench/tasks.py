"""What is timed of a model: a training step, a forward, or generating tokens.

In: a model and a batch.  Out: a `Task`, whose `prepare` is not timed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

Batch = dict[str, torch.Tensor]
NEW_TOKENS, PROMPT = 32, 16


@dataclass(frozen=True)
class Task:
    """One thing that a model does."""

    prepare: Callable[[], Any]
    run: Callable[[], Any]


def loss(model: Any, batch: Batch) -> Tensor:
    """The loss of a batch; a frozen model is differentiated in what it reads."""
    given = dict(batch)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        ids = given.pop("input_ids")
        given["inputs_embeds"] = model.get_input_embeddings()(ids).requires_grad_()
    found: Tensor = model(**given).loss
    return found


def train(model: Any, batch: Batch) -> Task:
    """Forward and backward."""
    return Task(
        lambda: model.train().zero_grad(set_to_none=True),
        lambda: loss(model, batch).backward(),
    )


def forward(model: Any, batch: Batch) -> Task:
    """A forward that keeps nothing."""

    def run() -> None:
        with torch.no_grad():
            model(**batch)

    return Task(model.eval, run)


def generate(model: Any, batch: Batch) -> Task:
    """Greedy generation of a few tokens after one prompt, with a cache."""
    prompt = batch["input_ids"][:1, :PROMPT]
    told = {"do_sample": False, "eos_token_id": None, "max_new_tokens": NEW_TOKENS}
    mask = torch.ones_like(prompt)
    return Task(
        model.eval,
        lambda: model.generate(input_ids=prompt, attention_mask=mask, **told),
    )


TASKS: Mapping[str, Callable[[Any, Batch], Task]] = {
    "train": train,
    "forward": forward,
    "generate": generate,
}
