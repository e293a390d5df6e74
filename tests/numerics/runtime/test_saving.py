"""`save_pretrained`: the adapter alone, or a plain model; and nothing of ours in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from peftc.api import compile, load
from peftc.runtime.saving import INDEX
from peftc.runtime.state import FILE, RECORD
from tests.numerics.runtime.tiny import (
    added,
    assert_same,
    llama,
    logits,
    refused,
    snapshot,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {"config.json", "generation_config.json", "model.safetensors"}


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1)


@pytest.fixture
def model(base: Any) -> Any:
    found = compile(twin(base), "lora(q, v, r=2)")
    with torch.no_grad():
        for _, parameter in added(found):
            parameter.add_(0.1)
    return found


def test_the_adapter_alone(model: Any, base: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "a")
    assert os.listdir(tmp_path / "a") == [FILE]
    again = load(twin(base), tmp_path / "a")
    assert torch.equal(logits(again), logits(model))
    model.save_pretrained(tmp_path / "b", is_main_process=False)
    assert not (tmp_path / "b").exists()
    with refused("PEFT631"):
        model.save_pretrained(tmp_path / "b", push_to_hub=True)


def test_a_training_checkpoint_has_an_index(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, state_dict=None)
    assert set(os.listdir(tmp_path)) == {FILE, INDEX}
    index = json.loads((tmp_path / INDEX).read_text())
    stored = load_file(tmp_path / FILE).keys()
    assert index["weight_map"].keys() == stored - {RECORD}
    assert RECORD in stored
    assert set(index["weight_map"].values()) == {FILE}


READ = """
import sys
import torch
sys.modules["peftc"] = None
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
with torch.no_grad():
    found = model(input_ids=torch.load(sys.argv[2])).logits
torch.save(found, sys.argv[3])
"""


def test_a_merged_folder_is_read_without_peftc(model: Any, tmp_path: Path) -> None:
    before, tuned = snapshot(model), logits(model)
    model.save_pretrained(tmp_path / "plain", merge=True)
    assert_same(snapshot(model), before)
    assert torch.equal(logits(model), tuned)
    assert set(os.listdir(tmp_path / "plain")) == PLAIN
    names = load_file(tmp_path / "plain" / "model.safetensors").keys()
    assert not [name for name in names if "peftc" in name]
    assert "peftc" not in (tmp_path / "plain" / "config.json").read_text()
    torch.save(tokens(), tmp_path / "ids")
    files = [str(tmp_path / name) for name in ("plain", "ids", "said")]
    subprocess.run([sys.executable, "-c", READ, *files], check=True)
    torch.testing.assert_close(torch.load(tmp_path / "said"), tuned, rtol=0, atol=1e-5)


def test_merging_first_and_saving_then(model: Any, tmp_path: Path) -> None:
    tuned = logits(model)
    model.peftc.merge()
    model.save_pretrained(tmp_path, merge=True)
    assert model.peftc.merged
    again = type(model).from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits(again), tuned, rtol=0, atol=1e-5)
    assert "peftc" not in again.__dict__


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    base = llama(layers=1, tie_word_embeddings=True)
    model = compile(twin(base), "lora(q, r=2)")
    model.save_pretrained(tmp_path, merge=True)
    again = type(model).from_pretrained(tmp_path).eval()
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(logits(again), logits(base))


def test_a_model_that_cannot_merge_writes_nothing(base: Any, tmp_path: Path) -> None:
    model = compile(twin(base), "adapter(ffn, d=4)")
    with refused("PEFT630"):
        model.save_pretrained(tmp_path / "plain", merge=True)
    assert not (tmp_path / "plain").exists()


def test_removing_gives_the_method_back(base: Any, tmp_path: Path) -> None:
    model = compile(twin(base), "lora(q, r=2)")
    model.peftc.remove()
    model.save_pretrained(tmp_path)
    assert set(os.listdir(tmp_path)) == PLAIN
    assert torch.equal(logits(type(base).from_pretrained(tmp_path)), logits(base))
