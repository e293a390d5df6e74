"""Distillation: its gradient, its teachers, and that they stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

import peftc
from peftc.training import Run
from peftc.training.controls.distill import Distill
from tests.numerics.runtime.tiny import llama, refused, t5
from tests.numerics.training.both import assert_equal, by_trainer, looped
from tests.numerics.training.test_run import batches

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "lora(q, r=2) + distill({})"


def batch() -> dict[str, torch.Tensor]:
    """Some positions have no label."""
    given = dict(batches()[0])
    given["labels"] = given["labels"].clone()
    given["labels"][0, :4] = -100
    return given


def started(said: str = "", **options: Any) -> tuple[Any, Run, Distill]:
    model = peftc.compile(llama(layers=1), SPEC.format(said)).train()
    run = Run(model, steps=3, **options)
    (control,) = run.controls
    assert isinstance(control, Distill)
    return model, run, control


def gradient_of(control: Distill, logits: torch.Tensor) -> torch.Tensor:
    given = logits.clone().requires_grad_()
    said = control.teacher.outputs(batch()).logits
    control.divergence(batch(), given, said).backward()
    assert given.grad is not None
    return given.grad


@pytest.fixture
def teacher() -> Any:
    return llama(seed=1, layers=1)


def test_the_gradient_of_the_paper(teacher: Any) -> None:
    """T (softmax(z_S / T) - softmax(z_T / T)) at each position that counts."""
    _, _, control = started('teacher="other", T=3', teachers={"other": teacher})
    given, heat = batch(), 3.0
    logits = torch.randn(2, 8, 64)
    with torch.no_grad():
        said = teacher(input_ids=given["input_ids"]).logits
    wanted = heat * (F.softmax(logits / heat, -1) - F.softmax(said / heat, -1))
    counts = torch.zeros(2, 8, dtype=torch.bool)
    counts[:, :-1] = given["labels"][:, 1:] != -100
    wanted = wanted * counts[..., None] / counts.sum()
    got = gradient_of(control, logits)
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kind", ["fkl", "rkl", "jsd", "mse"])
def test_a_student_that_is_its_teacher_learns_nothing(kind: str) -> None:
    model, _, control = started(f"kind={kind}")
    with torch.no_grad():
        logits = control.teacher.outputs(batch()).logits
        assert float(control.divergence(batch(), logits, logits)) == pytest.approx(
            0, abs=1e-6
        )
    assert gradient_of(control, logits).abs().max() < 1e-6
    assert model.training


def test_the_base_is_the_teacher_without_methods_or_dropout() -> None:
    spec = "lora(q, r=2, dropout=0.5) + distill()"
    base = llama(layers=1, attention_dropout=0.5)
    expected = base(input_ids=batch()["input_ids"]).logits
    model = peftc.compile(base, spec).train()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    run = Run(model, steps=1)
    (control,) = run.controls
    assert isinstance(control, Distill)
    assert torch.equal(control.teacher.outputs(batch()).logits, expected)
    run.loss(batch()).backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(
        run.trained()
    )


def test_nothing_of_the_teacher_is_plain_training(teacher: Any) -> None:
    model, run, _ = started('teacher="other", alpha=0', teachers={"other": teacher})
    loss = run.loss(batch())
    assert torch.equal(loss, model(**batch()).loss)
    _, run, _ = started('teacher="other"', teachers={"other": teacher})
    run.loss(batch()).backward()
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert not teacher.training


def test_both_executors(tmp_path: Path, teacher: Any) -> None:
    teacher.save_pretrained(tmp_path / "big")
    spec = SPEC.format(f'teacher="{tmp_path / "big"}", kind=jsd')
    model = looped(spec)
    by_name = SPEC.format('teacher="big", kind=jsd')
    other = by_trainer(by_name, tmp_path / "out", teachers={"big": teacher})
    assert_equal(model, other)


def test_targets_of_an_encoder_decoder_are_not_shifted() -> None:
    model = peftc.compile(t5(), "lora(q, r=2) + distill()").train()
    run = Run(model, steps=1)
    (control,) = run.controls
    assert isinstance(control, Distill)
    given = batch()
    logits = torch.zeros(2, 8, 64, requires_grad=True)
    said = control.teacher.outputs(given).logits
    control.divergence(given, logits, said).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.abs().sum(-1) > 0, given["labels"] != -100)


def test_teachers_that_do_not_fit_are_refused() -> None:
    for said in ("alpha=2", 'teacher="nowhere"'):
        with refused("PEFT699"):
            started(said)
    other = llama(layers=1, vocab_size=70)
    _, run, _ = started('teacher="other"', teachers={"other": other})
    with refused("PEFT699"):
        run.loss(batch())
