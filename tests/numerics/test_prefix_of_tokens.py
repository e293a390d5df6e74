"""A prefix made of real tokens is these tokens.

In a decoder whose positions go on behind the prefix, rows that hold the keys and values
of tokens reproduce what the model says after them: the rows enter after every rotation,
in the order of the heads, and tokens stand where they would.
"""

from __future__ import annotations

import pytest
import torch

import peftc
from tests.models import relative, tokens
from tests.numerics.matrix import build

P = 3


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt-neox"])
def test_rows_of_cached_tokens_reproduce_running_them(family: str) -> None:
    network, ids = build(family, torch.float64), tokens(batch=1)
    with torch.no_grad():
        whole = network(input_ids=ids).logits[:, P:]
        kept = network(input_ids=ids[:, :P], use_cache=True).past_key_values
    peftc.compile(network, f"prefix(p={P})")
    added = network.peftc.parameters_by_method()["prefix"]
    with torch.no_grad():
        for name, parameter in added.items():
            layer = kept.layers[int(next(filter(str.isdigit, name.split("."))))]
            rows = layer.keys if name.endswith(".K") else layer.values
            parameter.copy_(rows[0].transpose(0, 1).flatten(1))
        got = network(input_ids=ids[:, P:]).logits
    assert relative(got, whole) < 1e-6  # rotations are computed in float32
