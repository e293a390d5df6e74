"""TRL's trainers train what peftc compiles, and do what methods ask for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

import peftc
from peftc.training import Run, attach
from tests.models import model, tokens

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

RATE, TEXTS, BATCH = 0.1, 8, 4


class InOrder(SFTTrainer):
    """Takes the samples as they come."""

    def _get_train_sampler(self, *_: Any) -> Any:
        data: Any = self.train_dataset
        return torch.utils.data.SequentialSampler(data)


def words() -> PreTrainedTokenizerFast:
    named = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{n}": n for n in range(3, 128)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(named, unk_token="w3")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


def by_trl(spec: str, folder: Path) -> Any:
    made = peftc.compile(model("llama"), spec)
    arguments = SFTConfig(
        output_dir=str(folder),
        num_train_epochs=1,
        per_device_train_batch_size=BATCH,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        max_length=32,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        disable_tqdm=True,
    )
    data = Dataset.from_dict({"input_ids": tokens(TEXTS).tolist()})
    trainer = InOrder(made, arguments, train_dataset=data, processing_class=words())
    attach(trainer)
    trainer.train()
    return made


def by_loop(spec: str) -> Any:
    made = peftc.compile(model("llama"), spec).train()
    run = Run(made, steps=TEXTS // BATCH)
    optimizer = torch.optim.SGD(run.parameter_groups(lr=RATE))
    for ids in tokens(TEXTS).split(BATCH):
        mask = torch.ones_like(ids)
        run.loss({"input_ids": ids, "labels": ids, "attention_mask": mask}).backward()
        run.optimize(optimizer)
    run.finalize()
    return made


@pytest.mark.parametrize(
    "spec",
    [
        "lora(q, v, r=2)",
        "lora(q, v, r=2) + distill(T=2, alpha=0.5)",
        "adamix(lora(q, v, r=2), E=2)",
    ],
)
def test_sft_follows_a_loop(spec: str, tmp_path: Path) -> None:
    """The numbers of a loop, controls that read logits included."""
    trained, looped = (
        {n: p for n, p in one.named_parameters() if p.requires_grad}
        for one in (by_trl(spec, tmp_path), by_loop(spec))
    )
    start = dict(peftc.compile(model("llama"), spec).named_parameters())
    moved = [not torch.equal(p, start[name]) for name, p in trained.items()]
    assert any(moved)
    for name, value in looped.items():
        torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-6)


def test_a_head_that_is_bypassed_is_told(tmp_path: Path) -> None:
    """TRL multiplies by the weight of the head itself: what is there is not trained."""
    with pytest.warns(UserWarning, match=r"PEFT700.*2 of them.*lm_head"):
        by_trl("lora(q, head, r=2)", tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*PEFT700")
        by_loop("lora(q, head, r=2)")
        by_trl("lora(q, r=2)", tmp_path)
