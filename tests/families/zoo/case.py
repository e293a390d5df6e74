"""What a case of the family tests consists of, and the sizes that most share.

Width 32, feed-forward 48, four heads of 8, two key/value heads where the family has
them, 96 tokens, two layers: no two axes that could be mistaken for each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LAYERS = 2

MAIN: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**MAIN, "num_key_value_heads": 2}
OWN_HEADS = {**GROUPED, "head_dim": 8}


@dataclass(frozen=True)
class Case:
    """One family: names of classes in `transformers` (importing them all takes long),
    and the facts its configuration is made of."""

    model: str
    config: str
    facts: Mapping[str, Any]
    attentions: tuple[str, ...] = ("sdpa", "eager")
    """The spellings of attention that the family has, its usual one first."""
    layers: int = LAYERS
    """How often the lines with `{i}` of the expectation are repeated."""
    quick: bool = False
    """Tried in a quick run too, in one variant: for what takes little time."""
    notes: str = ""
    """For docs/models.md: what is special, what is not resolved and why."""
    differs: str = ""
    """Why a compiled model does not start with the very bits of one that is not
    compiled, if it does not."""
    uncached: str = ""
    """Why cached generation is not full recomputation, if it is not."""
    generates: bool = True
    """Whether `generate()`, where the model has it, needs no more than its inputs."""
    prefix: str = ""
    """The code of the diagnostic with which its attentions refuse to be extended."""
    device: str = "meta"
    """Where its forward can be traced without weights; some put tensors of their own on
    the CPU."""
    inputs: Callable[[Any], dict[str, Any]] | None = None
    """Keyword arguments of the forward of a model, on its device, where token numbers
    alone will not do."""
