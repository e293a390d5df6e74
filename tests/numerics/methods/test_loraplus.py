"""LoRA+: up factors move by as much more as the rates say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import peftc
from peftc.training import Run
from tests.numerics.runtime.tiny import llama, refused
from tests.numerics.training.both import RATE, assert_equal, by_trainer, looped
from tests.numerics.training.test_run import added, batches

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "lora(q, r=2) + loraplus(ratio=4)"
INSIDE = """
method faster() on linear {
  param A[2, in] ~ kaiming(5), B[out, 2] = 0
  W' = W + B @ A
  train rate(B, times=4)
}
faster(q)
"""


def stepped(spec: str) -> tuple[Any, dict[str, torch.Tensor], dict[str, Any]]:
    """A model after one step, and its tensors and gradients before it."""
    model = peftc.compile(llama(layers=2), spec).train()
    run = Run(model, steps=1)
    optimizer = torch.optim.SGD(run.parameter_groups(lr=RATE))
    before = {n: t.clone() for n, t in added(model).items()}
    run.loss(batches()[0]).backward()
    pairs = ((n, p.grad) for n, p in run.trained().items())
    gradients = {n: g.clone() for n, g in pairs if g is not None}
    run.optimize(optimizer)
    return model, before, gradients


def test_up_factors_learn_faster() -> None:
    for spec in (SPEC, INSIDE):
        model, before, gradients = stepped(spec)
        for name, tensor in added(model).items():
            rate = RATE * (4 if name.endswith(".B") else 1)
            wanted = before[name] - rate * gradients[name]
            torch.testing.assert_close(tensor, wanted)


def test_both_executors(tmp_path: Path) -> None:
    assert_equal(looped(SPEC), by_trainer(SPEC, tmp_path))


def test_names_that_nothing_has_are_refused() -> None:
    with refused("PEFT697"):
        Run(peftc.compile(llama(layers=1), "bitfit(q, create=true) + loraplus()"))


def test_an_optimizer_without_groups_is_refused() -> None:
    run = Run(peftc.compile(llama(layers=1), SPEC).train())
    run.loss(batches()[0]).backward()
    with refused("PEFT693"):
        run.optimize(torch.optim.SGD(run.trained().values(), lr=RATE))
