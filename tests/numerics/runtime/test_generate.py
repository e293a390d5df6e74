"""`generate()` of a compiled decoder, token for token as with hooks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.numerics.runtime.tiny import compiled, hooked, llama, tokens, twin

LEFT = torch.ones(2, 6, dtype=torch.long)
LEFT[0, :2] = 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"attention_mask": LEFT},
        {"num_beams": 3},
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"cache_implementation": "static", "attention_mask": LEFT},
    ],
    ids=["plain", "left padding", "beams", "no cache", "static", "static, padding"],
)
def test_greedy(options: dict[str, Any]) -> None:
    base = llama()
    model = twin(base)
    handle = compiled(model)
    reference = hooked(twin(base), model)
    call = {"max_new_tokens": 5, "do_sample": False, **options}
    for _ in range(2):
        made = model.generate(input_ids=tokens(), **call)
        assert torch.equal(made, reference.generate(input_ids=tokens(), **call))
        graphs = handle.captures.count
    assert graphs == handle.captures.count <= 4
    assert not torch.equal(made, base.generate(input_ids=tokens(), **call))


def test_generation_while_disabled_is_the_bases() -> None:
    base = llama()
    model = twin(base)
    handle = compiled(model)
    call = {"max_new_tokens": 5, "do_sample": False}
    with handle.disabled():
        made = model.generate(input_ids=tokens(), **call)
    assert torch.equal(made, base.generate(input_ids=tokens(), **call))
