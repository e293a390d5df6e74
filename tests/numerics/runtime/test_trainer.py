"""Transformers' Trainer trains, saves and resumes a compiled model as it is."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

from peftc.api import compile, load
from peftc.runtime.state import FILE
from tests.numerics.runtime.tiny import (
    added,
    compiled,
    hooked,
    llama,
    logits,
    refused,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 4


def data() -> list[dict[str, Any]]:
    """Rows with a column that the model does not take."""
    return [{"input_ids": row, "labels": row, "junk": "x"} for row in tokens(16, 8)]


def train(model: Any, folder: Path, resume: str | None = None, **more: Any) -> Any:
    """Train; returns the trainer and its losses."""
    options = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "learning_rate": 0.05,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 1,
    }
    arguments = TrainingArguments(str(folder), **{**options, **more})
    trainer = Trainer(model, arguments, train_dataset=data(), eval_dataset=data()[:4])
    trainer.train(resume_from_checkpoint=resume)
    return trainer, [one["loss"] for one in trainer.state.log_history if "loss" in one]


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1)


def tuned(base: Any) -> Any:
    return compile(twin(base), "lora(q, v, r=2, dropout=0.1)")


def test_training_saving_and_resuming(
    base: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tuned(base)
    _, losses = train(model, tmp_path / "a")
    assert len(losses) == STEPS
    checkpoint = tmp_path / "a" / "checkpoint-2"
    assert FILE in os.listdir(checkpoint)
    assert not [n for n in os.listdir(checkpoint) if n in ("model.safetensors",)]
    other = tuned(base)
    with caplog.at_level(logging.WARNING):
        _, again = train(other, tmp_path / "b", resume=str(checkpoint))
    assert again == losses
    assert "missing keys" not in caplog.text
    assert "unexpected keys" not in caplog.text
    for (name, one), (_, two) in zip(added(model), added(other), strict=True):
        assert torch.equal(one, two), name
    assert model.peftc.captures.count == other.peftc.captures.count == 1
    assert torch.equal(logits(model.eval()), logits(other.eval()))
    third = load(twin(base), tmp_path / "a" / f"checkpoint-{STEPS}")
    assert torch.equal(logits(third), logits(model))


def test_a_checkpoint_of_another_base_or_plan_is_refused(
    base: Any, tmp_path: Path
) -> None:
    train(tuned(base), tmp_path / "a", max_steps=2)
    checkpoint = str(tmp_path / "a" / "checkpoint-2")
    changed = twin(base)
    with torch.no_grad():
        changed.lm_head.weight[0, 0] += 1
    for model, code in (
        (tuned(changed), "PEFT625"),
        (compile(twin(base), "lora(q, v, r=2, dropout=0.1, alpha=3)"), "PEFT626"),
    ):
        before = [parameter.clone() for _, parameter in added(model)]
        with refused(code):
            train(model, tmp_path / "b", resume=checkpoint)
        for (name, now), then in zip(added(model), before, strict=True):
            assert torch.equal(now, then), name


def test_the_best_checkpoint_is_loaded_at_the_end(base: Any, tmp_path: Path) -> None:
    model = tuned(base)
    trainer, _ = train(
        model,
        tmp_path,
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,
    )
    best = load(twin(base), trainer.state.best_model_checkpoint)
    assert torch.equal(logits(best), logits(model.eval()))


@pytest.mark.parametrize("more", [{"bf16": True}, {"activation_checkpointing": True}])
def test_losses_are_those_of_hooks(
    base: Any, tmp_path: Path, more: dict[str, Any]
) -> None:
    model = twin(base)
    compiled(model)
    reference = twin(base)
    compiled(reference)
    hooks = hooked(twin(base).requires_grad_(False), reference)
    slots = torch.nn.ModuleList(m for n, m in reference.named_modules() if "low" in n)
    hooks.add_module("slots", slots)
    _, mine = train(model, tmp_path / "a", save_strategy="no", **more)
    _, other = train(hooks, tmp_path / "b", save_strategy="no", **more)
    near = 5e-3 if "bf16" in more else 1e-5
    assert mine == pytest.approx(other, rel=near)
    started = dict(added(compiled(twin(base)).model))
    pairs = zip(added(model), added(reference), strict=True)
    for (name, one), (_, two) in pairs:
        assert not torch.equal(one, started[name])
        torch.testing.assert_close(one, two, rtol=0, atol=10 * near)
