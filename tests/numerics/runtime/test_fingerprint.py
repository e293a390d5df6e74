"""The fingerprint of a base: equal for equal bases, and it says what differs."""

from __future__ import annotations

import json

import pytest
import torch
import xxhash

from peftc.runtime.fingerprint import Fingerprint, fingerprint
from tests.numerics.runtime.tiny import compiled, llama, logits, tokens, twin


def test_it_does_not_depend_on_added_tensors_flags_or_use() -> None:
    base = llama(layers=1)
    before = fingerprint(base)
    assert fingerprint(twin(base)) == before
    handle = compiled(base)
    logits(base)
    base.train()
    base(input_ids=tokens(), labels=tokens()).loss.backward()
    assert fingerprint(base) == before
    handle.remove()
    assert fingerprint(base) == before
    assert before.difference(before) == ""


def test_it_is_of_names_shapes_dtypes_and_bytes() -> None:
    base = llama(layers=1)
    print_ = fingerprint(base)
    weight = base.lm_head.weight
    digest = xxhash.xxh3_128_hexdigest(weight.detach().numpy().tobytes())
    assert print_.tensors["lm_head.weight"] == f"float32[64,32] {digest}"
    assert print_.tensors.keys() == base.state_dict().keys()


def test_layout_in_memory_makes_no_difference() -> None:
    base, other = llama(layers=1), llama(layers=1)
    weight = other.lm_head.weight
    weight.data = weight.data.t().contiguous().t()
    assert not weight.is_contiguous()
    assert fingerprint(base) == fingerprint(other)


def test_the_text_is_read_back() -> None:
    base = fingerprint(llama(layers=1))
    assert Fingerprint.parse(base.text()) == base


@pytest.mark.parametrize("text", ["[]", "{}", '{"tensors": 3}', '{"config": "x"}'])
def test_any_other_json_is_no_fingerprint(text: str) -> None:
    with pytest.raises(ValueError, match="no fingerprint"):
        Fingerprint.parse(text)


def test_a_damaged_text_differs_and_does_not_raise() -> None:
    base = fingerprint(llama(layers=1))
    for value in ("", " ", "float32[64,32]", 3):
        tensors = {**base.tensors, "lm_head.weight": value}
        text = json.dumps({"config": base.config, "tensors": tensors})
        assert "lm_head.weight" in Fingerprint.parse(text).difference(base)


def test_it_says_what_differs() -> None:
    base = llama(layers=1)
    mine = fingerprint(base)
    other = fingerprint(twin(base).to(torch.bfloat16))
    assert mine.difference(other).endswith("is bfloat16[64,32], not float32[64,32]")
    deeper = fingerprint(llama(layers=2))
    assert "`model.layers.1" in mine.difference(deeper)
    assert mine.difference(deeper).endswith("is not expected")
    assert deeper.difference(mine).endswith("is missing")
    base.model.norm.weight.data[3] += 1
    changed = fingerprint(base)
    assert mine.difference(changed) == "the values of `model.norm.weight` differ"
    base.model.norm.weight.data[3] -= 1
    base.config.rope_parameters = {"rope_type": "default", "rope_theta": 5.0}
    assert mine.difference(fingerprint(base)) == "its configuration differs"
