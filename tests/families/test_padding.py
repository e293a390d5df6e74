"""Padding says nothing to a compiled encoder: what it gives for tokens is the same.

Low-rank updates and prefixes are drawn at random; the padding is on the right, where
positions do not move, and holds other tokens.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftc
from tests.families.cases import model, slow

SPEC = "lora(q, v, r=2) + prefix(k, v, p=3, positions=keep)"
TOKENS, PADDED = 6, 9

QUICK = ("distilbert",)
FAMILIES = (
    "distilbert",
    "albert",
    "deberta",
    "deberta-v2",
    "electra",
    "megatron-bert",
    "modernbert",
    "mpnet",
    "nomic-bert",
    "roformer",
)


def compiled(family: str) -> Any:
    made = model(family, device="cpu")
    peftc.compile(made, SPEC)
    torch.manual_seed(1)
    for parameter in made.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    return made


@pytest.mark.parametrize("family", [f if f in QUICK else slow(f) for f in FAMILIES])
def test_padding_changes_no_token(family: str) -> None:
    made = compiled(family)
    ids = torch.randint(3, 96, (2, PADDED), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    mask[:, TOKENS:] = 0
    alone = ids[:, :TOKENS]
    with torch.no_grad():
        plain = made(input_ids=alone, attention_mask=torch.ones_like(alone)).logits
        padded = made(input_ids=ids, attention_mask=mask).logits
        other = made(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    torch.testing.assert_close(padded[:, :TOKENS], plain, rtol=1e-5, atol=2e-6)
    assert not torch.allclose(other[:, :TOKENS], plain, rtol=1e-3)
