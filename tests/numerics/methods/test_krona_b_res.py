"""The learned residual of KronA_B_res; the product is tested with krona_b."""

from __future__ import annotations

import torch

import peftc
from tests.numerics.runtime.tiny import llama, logits


def test_the_residual_starts_as_told() -> None:
    model = llama()
    base = logits(model)
    peftc.compile(model, "krona_b_res(ffn, res_init=1)")
    assert not torch.allclose(logits(model), base)
    values = [
        p.item() for n, p in model.named_parameters() if n.endswith("krona_b_res.res")
    ]
    assert values == [1, 1]
