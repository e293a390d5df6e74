"""Which predictions count: those that models' own losses are means over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
import transformers as hf

import peftc
from peftc.training import Run
from peftc.training.labelled import count, counted, learns_next, of_positions
from tests.numerics.runtime.tiny import bart, llama, t5

if TYPE_CHECKING:
    from collections.abc import Callable

IDS = torch.arange(2, 14).view(2, 6)


class Speaker(hf.LlamaForCausalLM):
    """A class with a name of its own."""


def bert(kind: Any, **facts: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    }
    facts = {"num_hidden_layers": 1, "vocab_size": 64, "num_labels": 5, **facts}
    return kind(hf.BertConfig(**sizes, **facts)).eval()


def gpt2() -> Any:
    sizes: dict[str, Any] = {"n_embd": 32, "n_head": 4, "n_layer": 1, "vocab_size": 64}
    model: Any = hf.GPT2LMHeadModel(hf.GPT2Config(**sizes))
    return model.eval()


def speaker() -> Any:
    kind: Any = Speaker
    model = kind(llama(layers=1).config)
    return model.eval()


LABELS: dict[str, Callable[[], Any]] = {
    "llama": lambda: llama(layers=1),
    "gpt2": gpt2,
    "a name of its own": speaker,
    "bert, a decoder": lambda: bert(hf.BertLMHeadModel, is_decoder=True),
    "t5": t5,
    "bart": bart,
    "masked": lambda: bert(hf.BertForMaskedLM),
    "classes of tokens": lambda: bert(hf.BertForTokenClassification),
}
NOT_NEXT = {"t5", "bart", "masked", "classes of tokens"}


@pytest.mark.parametrize("name", LABELS)
def test_the_loss_is_the_mean_over_what_counts(name: str) -> None:
    model: Any = LABELS[name]()
    labels = torch.randint(0, 5, IDS.shape, generator=torch.Generator().manual_seed(1))
    labels[0, :3] = labels[1, -1] = -100
    with torch.no_grad():
        out = model(input_ids=IDS, labels=labels)
    assert learns_next(model) == (name not in NOT_NEXT)
    targets = labels if name in NOT_NEXT else labels[:, 1:]
    targets = targets[targets != -100]
    said = of_positions(model, out.logits, labels)
    torch.testing.assert_close(F.cross_entropy(said, targets), out.loss)
    assert count(model, labels) == len(targets) == int(counted(model, labels).sum())
    assert counted(model, labels).shape == labels.shape


def test_labels_of_samples_count_one_by_one() -> None:
    model, labels = bert(hf.BertForSequenceClassification), torch.tensor([3, -100])
    with torch.no_grad():
        out = model(input_ids=IDS, labels=labels)
    said = of_positions(model, out.logits, labels)
    torch.testing.assert_close(F.cross_entropy(said, labels[:1]), out.loss)
    assert count(model, labels) == count(speaker(), labels) == 1


@pytest.mark.parametrize("columns", [1, 5])
def test_numbers_count_all(columns: int) -> None:
    model = bert(hf.BertForSequenceClassification, num_labels=columns)
    logits, labels = torch.randn(2, columns), torch.tensor([[-100.0], [1.0]])
    labels = labels.expand(2, columns).squeeze(-1)
    assert torch.equal(of_positions(model, logits, labels), logits)
    assert count(model, labels) == 1
    assert torch.equal(of_positions(model, logits, None), logits)


def test_a_model_of_pictures_and_text_learns_the_next_token() -> None:
    """Transformers' name for its loss is that of encoder-decoders."""
    text = llama(layers=1).config.to_dict()
    picture: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
    }
    picture |= {"num_hidden_layers": 2, "image_size": 8, "patch_size": 4}
    config = hf.LlavaConfig(
        text_config=hf.LlamaConfig(**text),
        vision_config=hf.CLIPVisionConfig(**picture),
        image_token_index=63,
    )
    model: Any = hf.LlavaForConditionalGeneration(config)
    with torch.no_grad():
        out = model.eval()(input_ids=IDS, labels=IDS)
    said = of_positions(model, out.logits, IDS)
    wanted = F.cross_entropy(said, IDS[:, 1:].flatten())
    torch.testing.assert_close(wanted, out.loss)


def test_a_sample_without_labels_adds_nothing_to_fisher_scores() -> None:
    batch = {"input_ids": IDS, "labels": IDS.clone()}
    batch["labels"][1] = -100
    model = peftc.compile(llama(layers=1), "fishmask(q, keep=0.1)").train()
    Run(model, steps=1, calibration=[batch])
    both = [p.detach().clone() for p in model.parameters() if p.requires_grad]
    other = peftc.compile(llama(layers=1), "fishmask(q, keep=0.1)").train()
    Run(other, steps=1, calibration=[{n: t[:1] for n, t in batch.items()}])
    alone = [p for p in other.parameters() if p.requires_grad]
    assert [p.shape for p in both] == [p.shape for p in alone]
    buffers = zip(model.buffers(), other.buffers(), strict=True)
    assert all(torch.equal(a, b) for a, b in buffers)
