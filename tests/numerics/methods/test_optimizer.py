"""The optimizer that a spec asks for is the one that steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import peftc
from peftc.training import Run
from peftc.training.controls.optimizer import UNPAGED
from tests.numerics.runtime.tiny import llama, refused
from tests.numerics.training.both import RATE, assert_equal, by_trainer, looped
from tests.numerics.training.test_run import batches

if TYPE_CHECKING:
    from pathlib import Path

SPEC = (
    "lora(q, r=2) + optimizer(kind=adam, lr=0.02, beta1=0.8, eps=0.01, "
    "weight_decay=0.1, max_norm=0.3, paged=true)"
)


def test_both_executors_take_it(tmp_path: Path) -> None:
    made: list[torch.optim.Optimizer] = []

    def make(run: Run) -> torch.optim.Optimizer:
        made.append(run.make_optimizer(RATE))
        assert run.notes == (UNPAGED,)
        return made[-1]

    model = looped(SPEC, make=make)
    (optimizer,) = made
    assert isinstance(optimizer, torch.optim.Adam)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["betas"][0], group["weight_decay"]) == (0.02, 0.8, 0.1)
    assert_equal(model, by_trainer(SPEC, tmp_path, max_grad_norm=1.0))


def test_gradients_are_clipped() -> None:
    run = Run(peftc.compile(llama(layers=1), SPEC).train())
    run.loss(batches()[0]).backward()
    for parameter in run.trained().values():
        parameter.grad = torch.ones_like(parameter)
    run.before_optimizer(run.make_optimizer(RATE))
    gradients = [p.grad for p in run.trained().values() if p.grad is not None]
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm.item() == pytest.approx(0.3, rel=1e-4)


def test_another_optimizer_is_refused() -> None:
    run = Run(peftc.compile(llama(layers=1), SPEC).train())
    run.loss(batches()[0]).backward()
    with refused("PEFT698"):
        run.optimize(torch.optim.SGD(run.parameter_groups(lr=RATE)))
