"""Models and data for the commands that train: so small that a step takes no time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from transformers import T5Config, T5ForConditionalGeneration

from tests.numerics.runtime.tiny import llama

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BYTES = {"vocab_size": 259, "bos_token_id": 256, "eos_token_id": 257}


def byte_llama(folder: Path, **changes: Any) -> str:
    """The folder of a Llama that reads bytes."""
    facts = {**BYTES, "pad_token_id": 258, "max_position_embeddings": 64, **changes}
    llama(layers=1, **facts).save_pretrained(folder)
    return str(folder)


def byte_t5(folder: Path) -> str:
    """The folder of a T5 that reads bytes."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {"decoder_start_token_id": 258, "eos_token_id": 257}
    config = T5Config(
        vocab_size=259, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, **facts
    )
    config.pad_token_id = 258
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return str(folder)


def lines(path: Path, records: Iterable[dict[str, Any]]) -> str:
    """A JSONL file."""
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return str(path)


def texts(path: Path) -> str:
    """Texts of different lengths."""
    return lines(path, ({"text": "ab" * n + "."} for n in range(2, 22)))


def sums(path: Path) -> str:
    """Prompts with answers."""
    rows = ({"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(20))
    return lines(path, rows)


def moods(path: Path) -> str:
    """Texts with labels that are words."""
    rows = (
        {"text": "x" * (n % 7 + 1), "label": "odd" if n % 2 else "even"}
        for n in range(20)
    )
    return lines(path, rows)
