"""A loss that is not finite stops the training and says where that begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.training import Run, attach
from tests.models import model, randomise, tokens

if TYPE_CHECKING:
    from pathlib import Path

VALUE = "model.layers.1.self_attn.v_proj"


class InOrder(Trainer):
    """Takes the samples as they come."""

    def _get_train_sampler(self, *_: Any) -> Any:
        data: Any = self.train_dataset
        return torch.utils.data.SequentialSampler(data)


def made(**more: Any) -> Any:
    return peftc.compile(model("llama"), "lora(q, v, r=2)", **more)


def spoilt(what: str) -> tuple[Any, torch.Tensor]:
    """A model and labels, something of which gives a loss that is no number."""
    one, labels = made(), tokens()
    value = one.get_submodule(VALUE)
    with torch.no_grad():
        if what == "weight":
            value.weight[0, 0] = float("nan")
        if what == "tensor":
            value.peftc.v.lora.A[0, 0] = float("inf")
        if what == "overflow":
            value.peftc.v.lora.A.fill_(1e38)
            value.peftc.v.lora.B.fill_(1e38)
        if what == "labels":
            labels = torch.full_like(labels, -100)
    return one.train(), labels


def test_layers_that_are_captured_one_by_one() -> None:
    one = made(entries="layers").train()
    with torch.no_grad():
        one.get_submodule(VALUE).peftc.v.lora.B.fill_(float("inf"))
    run = Run(one, steps=1)
    with pytest.raises(PeftcError, match="PEFT688") as caught:
        run.loss({"input_ids": tokens(), "labels": tokens()})
    assert f"infinity at `{VALUE}:v.lora.B`" in str(caught.value)


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("weight", f"NaN at `{VALUE}.weight`"),
        ("tensor", f"infinity at `{VALUE}:v.lora.A`"),
        ("overflow", f"at `{VALUE}:v` (`linear`)"),
        ("labels", "NaN at `outside its modules` (`cross_entropy`)"),
    ],
)
def test_it_says_where_it_begins(what: str, place: str) -> None:
    one, labels = spoilt(what)
    run = Run(one, steps=1)
    with pytest.raises(PeftcError, match="PEFT688") as caught:
        run.loss({"input_ids": tokens(), "labels": labels})
    assert place in str(caught.value)
    assert "at step 1: nan" in str(caught.value)


def test_a_watched_model_stops_there() -> None:
    one = made(backend="watched")
    batch = {"input_ids": tokens()}
    one(**batch)
    with torch.no_grad():
        one.get_submodule(VALUE).peftc.v.lora.B.fill_(float("inf"))
    with pytest.raises(PeftcError, match="PEFT617") as caught:
        one(**batch)
    assert f"infinity at `{VALUE}:v.lora.B`" in str(caught.value)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_masks_with_infinity_are_meant(attention: str) -> None:
    plain, watched = made(), made(backend="watched")
    batch = {"input_ids": tokens(), "attention_mask": torch.ones_like(tokens())}
    batch["attention_mask"][0, :3] = 0
    for one in (plain, watched):
        one.set_attn_implementation(attention)
        randomise(one)
    assert torch.equal(watched(**batch).logits, plain(**batch).logits)


def test_trainer_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """The step does not happen, and what was saved before is whole."""
    arguments = TrainingArguments(
        str(tmp_path),
        max_steps=4,
        save_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = [{"input_ids": row, "labels": row} for row in tokens(6)]
    none = torch.full_like(rows[0]["labels"], -100)
    rows += [{"input_ids": row, "labels": none} for row in tokens()]
    one = made()
    trainer = InOrder(one, arguments, train_dataset=rows)
    attach(trainer)
    with pytest.raises(PeftcError, match="PEFT688") as caught:
        trainer.train()
    kept = tmp_path / "checkpoint-3"
    assert "at step 4: nan" in str(caught.value)
    assert f"the last checkpoint is `{kept}`" in str(caught.value)
    again = peftc.load(model("llama"), kept)
    for name, value in one.named_parameters():
        assert torch.equal(again.get_parameter(name), value), name
