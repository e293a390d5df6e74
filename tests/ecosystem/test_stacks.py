"""Training stacks train a compiled model as they train one of Hugging Face PEFT.

The same base, PEFT's first values copied into ours, the same trainer: losses and what
was trained are equal.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate import Accelerator
from lightning.pytorch import LightningModule
from lightning.pytorch import Trainer as LightningTrainer
from peft import LoraConfig, get_peft_model
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

import peftc
from peftc.runtime.state import FILE
from tests.models import model, tokens

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

OPTIONS: dict[str, Any] = {
    "max_steps": 3,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "learning_rate": 0.02,
    "logging_steps": 1,
    "report_to": [],
    "use_cpu": True,
    "disable_tqdm": True,
    "seed": 3,
}


def pair(family: str) -> tuple[Any, Any]:
    """PEFT's model and ours, from the same values."""
    targets = {"t5": ["q", "v"], "llama": ["q_proj", "v_proj"]}[family]
    config = LoraConfig(r=2, lora_alpha=4, target_modules=targets)
    theirs = get_peft_model(model(family), config)
    ours = peftc.compile(model(family), "lora(q, v, r=2, alpha=4)")
    with torch.no_grad():
        for name, value in trained(ours).items():
            value.copy_(its(theirs, name))
    return theirs, ours


def trained(one: Any) -> dict[str, torch.nn.Parameter]:
    return {n: p for n, p in one.named_parameters() if p.requires_grad}


def its(theirs: Any, name: str) -> torch.Tensor:
    """PEFT's tensor by our name of it."""
    owner, _, rest = name.partition(".peftc.")
    factor = rest.rpartition(".")[2]
    path = f"base_model.model.{owner}.lora_{factor}.default.weight"
    found: torch.Tensor = theirs.get_parameter(path)
    return found


def check_alike(ours: Any, theirs: Any) -> None:
    moved = 0
    for name, value in trained(ours).items():
        wanted = its(theirs, name)
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=2e-6)
        moved += int(bool((wanted != 0).any()) and name.endswith("B"))
    assert moved


def of_lengths(*lengths: int) -> list[dict[str, Any]]:
    return [
        {"input_ids": tokens(1, n, seed=n)[0], "labels": tokens(1, n, seed=n + 50)[0]}
        for n in lengths
    ]


def padded(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Samples of several lengths as one batch; what is padded has no label."""
    pad = torch.nn.utils.rnn.pad_sequence
    ids = pad([row["input_ids"] for row in rows], batch_first=True)
    labels = [row["labels"] for row in rows]
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": pad(labels, batch_first=True, padding_value=-100),
    }


def losses(trainer: Any) -> list[float]:
    return [one["loss"] for one in trainer.state.log_history if "loss" in one]


def test_accumulated_batches_count_their_items(tmp_path: Path) -> None:
    """Trainer divides the loss of each batch by the labels of the whole step."""
    theirs, ours = pair("llama")
    rows = of_lengths(3, 9, 5, 7, 4, 8, 6, 9)

    def run(one: Any, name: str, **more: Any) -> Trainer:
        arguments = TrainingArguments(
            str(tmp_path / name), save_strategy="no", **{**OPTIONS, **more}
        )
        trainer = Trainer(one, arguments, data_collator=padded, train_dataset=rows)
        trainer.train()
        return trainer

    mine, other = run(ours, "ours"), run(theirs, "theirs")
    assert losses(mine) == pytest.approx(losses(other), rel=1e-5)
    check_alike(ours, theirs)
    once = pair("llama")[1]
    larger = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    assert losses(run(once, "once", **larger)) == pytest.approx(losses(mine), rel=1e-5)


def test_sequence_to_sequence(tmp_path: Path) -> None:
    """Generation while evaluating, the best checkpoint, and resuming from one."""
    theirs, ours = pair("t5")
    rows: Any = of_lengths(4, 6, 5, 7)

    def run(one: Any, name: str, resume: str | None = None, **more: Any) -> Any:
        facts = {
            "save_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "predict_with_generate": True,
            "generation_max_length": 5,
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
            "greater_is_better": True,  # the first is not the last
        }
        folder = str(tmp_path / name)
        options = {**OPTIONS, **facts, **more}
        trainer = Seq2SeqTrainer(
            one,
            Seq2SeqTrainingArguments(folder, **options),
            data_collator=padded,
            train_dataset=rows,
            eval_dataset=rows[:2],
        )
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    mine, other = run(ours, "ours"), run(theirs, "theirs")
    assert losses(mine) == pytest.approx(losses(other), rel=1e-5)
    best = mine.state.best_model_checkpoint
    assert os.path.basename(best) == os.path.basename(other.state.best_model_checkpoint)
    assert os.path.basename(best) != "checkpoint-3"
    check_alike(ours, theirs)
    again = peftc.load(model("t5"), best)
    for name, value in trained(ours).items():
        assert torch.equal(again.get_parameter(name), value), name
    said = mine.predict(rows[:2]).predictions
    assert (said == other.predict(rows[:2]).predictions).all()
    assert FILE in os.listdir(best)
    assert "model.safetensors" not in os.listdir(best)
    whole = run(pair("t5")[1], "whole", load_best_model_at_end=False)
    first = str(tmp_path / "whole" / "checkpoint-1")
    later = run(pair("t5")[1], "later", first, load_best_model_at_end=False)
    for name, value in trained(whole.model).items():
        assert torch.equal(later.model.get_parameter(name), value), name


def test_a_loop_with_accelerate() -> None:
    theirs, ours = pair("llama")
    for one in (theirs, ours):
        helper = Accelerator(cpu=True, gradient_accumulation_steps=2)
        rows = of_lengths(5, 5, 5, 5, 5, 5)
        loader: Any = torch.utils.data.DataLoader(rows, 1)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(trained(one).values(), lr=0.02)
        prepared, stepper, batches = helper.prepare(one, optimizer, loader)
        for batch in batches:
            with helper.accumulate(prepared):
                helper.backward(prepared(**batch).loss)
                helper.clip_grad_norm_(prepared.parameters(), 1.0)
                stepper.step()
                stepper.zero_grad()
        assert helper.unwrap_model(prepared) is one
    check_alike(ours, theirs)


def test_lightning(tmp_path: Path) -> None:
    """A module of Lightning that holds a compiled model: fitted, stored, restored."""

    class Tuned(LightningModule):
        def __init__(self, one: Any) -> None:
            super().__init__()
            self.one = one

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            loss: torch.Tensor = self.one(**batch).loss
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(trained(self).values(), lr=0.02)

    theirs, ours = pair("llama")
    rows: Any = of_lengths(5, 5, 5, 5)
    for one in (theirs, ours):
        fit = LightningTrainer(
            accelerator="cpu",
            max_epochs=1,
            accumulate_grad_batches=2,
            default_root_dir=tmp_path,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        fit.fit(Tuned(one.train()), torch.utils.data.DataLoader(rows, 1))
    check_alike(ours, theirs)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    fresh = Tuned(pair("llama")[1])
    fresh.load_state_dict(state)
    for name, value in trained(ours).items():
        assert torch.equal(fresh.one.get_parameter(name), value), name
