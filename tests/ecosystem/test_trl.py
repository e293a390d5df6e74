"""TRL's trainers train what peftc compiles, and do what methods ask for."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

import peftc
from peftc.training import Run, attach
from tests.models import model, randomise, tokens

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
    split = Tokenizer(WordLevel(named, unk_token="w3"))
    split.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=split,
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


PREFERRED = {
    "prompt": ["w5 w6 w7", "w9"],
    "chosen": [" w8 w9", " w10 w11"],
    "rejected": [" w10", " w12 w13"],
}


def preferring(made: Any, folder: Path, **more: Any) -> Any:
    arguments = DPOConfig(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=2,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0,
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=1,
        disable_tqdm=True,
        **more,
    )
    reference = made.peftc.reference()
    data = Dataset.from_dict(PREFERRED)
    trainer = DPOTrainer(
        made, reference, arguments, train_dataset=data, processing_class=words()
    )
    trainer.train()
    return trainer


def of_completions(made: Any, side: str) -> torch.Tensor:
    """The log probability of each completion, without batches or padding."""
    split, found = words(), []
    for prompt, rest in zip(PREFERRED["prompt"], PREFERRED[side], strict=True):
        given = split(prompt).input_ids
        ids = torch.tensor([[*given, *split(rest).input_ids, 2]])
        logs = made(input_ids=ids).logits.log_softmax(-1)[0, :-1]
        told = logs.gather(-1, ids[0, 1:, None]).squeeze(-1)
        found.append(told[len(given) - 1 :].sum())
    return torch.stack(found)


def preferring_by_hand(made: Any, beta: float = 0.1) -> list[float]:
    trained = [p for p in made.train().parameters() if p.requires_grad]
    optimizer, losses = torch.optim.SGD(trained, lr=RATE), []
    for _ in range(2):
        chosen, rejected = (of_completions(made, s) for s in ("chosen", "rejected"))
        with torch.no_grad(), made.peftc.disabled():
            bases = [of_completions(made, side) for side in ("chosen", "rejected")]
        margin = (chosen - bases[0]) - (rejected - bases[1])
        loss = -torch.nn.functional.logsigmoid(beta * margin).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("more", [{}, {"precompute_ref_log_probs": True}])
def test_dpo_compares_with_the_base(more: dict[str, Any], tmp_path: Path) -> None:
    """The reference is the base, whose tensors are the model's."""
    one, two = (peftc.compile(model("llama"), "lora(q, v, r=2)") for _ in range(2))
    for made in (one, two):
        randomise(made)
    trainer = preferring(one, tmp_path, **more)
    losses = preferring_by_hand(two)
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, rel=1e-4)
    assert abs(losses[0] - 0.6931) > 1e-3
    wanted = dict(two.named_parameters())
    for name, value in one.named_parameters():
        torch.testing.assert_close(value, wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("spec", ["lora(q, v, r=2)", "qlora(r=2)"])
def test_a_reference_shares_all_tensors(spec: str) -> None:
    made = peftc.compile(model("llama").eval(), spec)
    randomise(made)
    made.peftc.slots.add("another")
    reference = made.peftc.reference()
    own = {id(tensor) for tensor in (*made.parameters(), *made.buffers())}
    shelved = {id(tensor) for tensor in made.peftc.slots.shelved()}
    assert {id(tensor) for tensor in reference.peftc.slots.shelved()} == shelved
    assert {id(t) for t in (*reference.parameters(), *reference.buffers())} == own
    ids = tokens()
    with torch.no_grad(), made.peftc.disabled():
        base = made(ids).logits
    adapted = made(ids).logits
    assert torch.equal(reference(ids).logits, base)
    assert not torch.equal(adapted, base)
    assert torch.equal(made(ids).logits, adapted)
