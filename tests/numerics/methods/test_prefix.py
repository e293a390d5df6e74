"""Prefix tuning is a second small attention, mixed in by what each attention weighs.

The split form of the field reference: (1 - l) attention(q, K, V) + l attention(q, P),
with l from the log-sum-exps of both.
"""

from __future__ import annotations

import math

import pytest
import torch

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
