"""Prefix tuning is a second small attention, mixed in by what each attention weighs.

The split form of the field reference: (1 - l) attention(q, K, V) + l attention(q, P),
with l from the log-sum-exps of both.
"""

from __future__ import annotations

import math

import pytest
import torch

import peftc
from tests.families.cases import model
from tests.numerics.test_rewrite_attention import (
    HEADS,
    SCALE,
    SPELLINGS,
    extended,
    fixed,
    tensors,
)


@pytest.mark.parametrize("name", ["fused-causal", "added"])
def test_concatenated_rows_are_a_second_attention(name: str) -> None:
    meaning = SPELLINGS[name]
    added = tensors(HEADS, "K", "V")
    model, run = extended(meaning, [fixed(one, HEADS) for one in "KV"], added)
    x = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(4))
    got = run.forward(x)

    parts = model.double().parts(x.double())
    keys, values = (
        added[one].double().unflatten(-1, (HEADS, -1)).transpose(0, 1) for one in "KV"
    )
    own = (parts.query @ parts.key.mT * SCALE).masked_fill(~parts.seen, -math.inf)
    new = parts.query @ keys.mT * SCALE
    share = 1 / (1 + torch.exp(own.logsumexp(-1) - new.logsumexp(-1)))[..., None]
    split = (1 - share) * (own.softmax(-1) @ parts.value)
    split = split + share * (new.softmax(-1) @ values)
    wanted = model.after(x.double(), split)
    torch.testing.assert_close(got, wanted.float(), rtol=2e-5, atol=2e-5)


def test_rows_of_a_cross_attention_move_no_token() -> None:
    """However many they are, tokens start where the self-attentions say."""
    seen = []
    for positions in ("shift", "keep"):
        made = model("bart", device="cpu")
        cross = f"prefix(attention, p=6, positions={positions}) @ dec @ cross"
        peftc.compile(made, f"prefix(attention, p=2) @ dec @ self + {cross}")
        ids = torch.arange(3, 13).view(2, 5)
        with torch.no_grad():
            seen.append(made(input_ids=ids, decoder_input_ids=ids).logits)
    assert torch.equal(*seen)
