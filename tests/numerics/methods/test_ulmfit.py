"""ULMFiT: which layers move when, and how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.training import Run
from tests.numerics.runtime.tiny import llama, refused
from tests.numerics.training.both import RATE, assert_equal, by_trainer, looped
from tests.numerics.training.test_run import added, batches

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "lora(q, r=2) + full(v) + ulmfit(every=2, cut_frac=0.2)"


def layer_of(path: str) -> int:
    return int(path.split("layers.")[1].split(".")[0])


def test_layers_are_trained_from_the_top() -> None:
    model = peftc.compile(llama(layers=2), SPEC)
    start = {n: t.clone() for n, t in added(model).items()}

    def look(run: Run, optimizer: Any) -> None:
        for path, parameter in run.trained().items():
            group = 1 - layer_of(path)
            trained = max(0, run.step - 2 * group)
            state = optimizer.state.get(parameter, {})
            assert int(state.get("step", 0)) == trained
            if not trained:
                assert torch.equal(parameter, start[path])

    model = looped(SPEC, look, lambda run: run.make_optimizer(RATE))
    assert not any(torch.equal(t, start[n]) for n, t in added(model).items())


def test_rates_fall_from_group_to_group() -> None:
    run = Run(peftc.compile(llama(layers=2), SPEC).train(), steps=6)
    optimizer = run.make_optimizer(1.0)
    run.step = 4
    run.loss(batches()[0]).backward()
    run.before_optimizer(optimizer)
    rates = {
        layer_of(path): group["lr"]
        for group in optimizer.param_groups
        for path, p in run.trained().items()
        if any(p is one for one in group["params"])
    }
    assert rates[1] / rates[0] == pytest.approx(2.6)


def test_both_executors(tmp_path: Path) -> None:
    assert_equal(looped(SPEC), by_trainer(SPEC, tmp_path, max_grad_norm=0))


def test_an_epoch_is_the_default(tmp_path: Path) -> None:
    """Two epochs of three steps in the Trainer; in a loop it has to be said."""
    spec = "lora(q, r=2) + ulmfit(cut_frac=0.4)"
    with refused("PEFT695"):
        looped(spec)
    with refused("PEFT695"):
        by_trainer(spec, tmp_path)  # one epoch is over before the second layer
    looped(spec, epoch=3)
