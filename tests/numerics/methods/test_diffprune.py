"""DiffPruning: gates, their expected number, and the projection."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.training import Run
from peftc.training.choice import removed
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches

if TYPE_CHECKING:
    from torch import Tensor

TARGET = 0.05
SPEC = f"diffprune(q, v, target={TARGET}, lam=0.001)"


def named(model: Any, name: str) -> list[Tensor]:
    state = model.state_dict()
    return [t for path, t in state.items() if path.endswith(f"diffprune.{name}")]


def deltas(model: Any) -> list[Tensor]:
    """What merging adds to each weight."""
    sites = [site.weight for site in model.peftc.sites]
    before = [model.get_parameter(name).clone() for name in sites]
    model.peftc.merge()
    after = [model.get_parameter(name).clone() for name in sites]
    model.peftc.unmerge()
    return [b - a for a, b in zip(before, after, strict=True)]


def stepped(run: Run, optimizer: torch.optim.Optimizer) -> None:
    run.loss(batches()[run.step]).backward()
    run.optimize(optimizer)


def test_the_support_is_exact_and_stays() -> None:
    model = peftc.compile(llama(), SPEC).train()
    run = Run(model, steps=6)
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.05))
    keep, supports = removed(TARGET, 3072), []
    for step in range(6):
        before = deltas(model)
        stepped(run, optimizer)
        if step == 2:  # the difference that the projection saw
            assert sum(int((d != 0).sum()) for d in before) > keep
        if step >= 2:
            supports.append([d != 0 for d in deltas(model)])
            assert sum(int(s.sum()) for s in supports[-1]) == keep
    for later in supports[1:]:
        assert all(map(torch.equal, supports[0], later))


def test_the_largest_differences_are_kept() -> None:
    model = peftc.compile(llama(), SPEC).train()
    run = Run(model, steps=6)
    with torch.no_grad():
        for tensor in named(model, "w"):
            tensor.normal_()
    before = [d.clone() for d in named(model, "w")]
    project = next(c for c in run.controls if c.plan.control == "project")
    project.project()  # type: ignore[attr-defined]
    flat, mask = (
        torch.cat([t.abs().flatten() for t in ts]) for ts in (before, named(model, "m"))
    )
    assert flat[mask == 1].min() >= flat[mask == 0].max()
    for old, new, kept in zip(
        before, named(model, "w"), named(model, "m"), strict=True
    ):
        torch.testing.assert_close(new, old * kept)  # gates at 5 are open


@pytest.mark.parametrize(
    ("low", "high", "wanted"), [(-1.5, 1.5, 0.66819), (-0.1, 1.1, 0.95681)]
)
def test_the_expected_number_of_open_gates(
    low: float, high: float, wanted: float
) -> None:
    """Golden numbers of the field reference at a = 0.7; and what draws give."""
    spec = f"diffprune(q, lam=1, low={low}, high={high})"
    model = peftc.compile(llama(), spec).train()
    run = Run(model, steps=6)
    with torch.no_grad():
        for tensor in named(model, "a"):
            tensor.fill_(0.7)
    expected = run.values.losses()
    assert expected is not None
    expected = expected.detach()
    count = sum(t.numel() for t in named(model, "a"))
    assert float(expected) / count == pytest.approx(wanted, abs=1e-5)
    run.before_forward()
    noise = torch.cat([e.flatten() for e in named(model, "e")])
    gate = torch.sigmoid(noise.log() - (1 - noise).log() + 0.7)
    opened = (gate * (high - low) + low > 0).float().mean()
    assert float(opened) == pytest.approx(wanted, abs=4 * math.sqrt(0.25 / count))


def test_it_starts_as_the_base_and_counts_what_it_allocates() -> None:
    model = llama()
    batch = batches()[0]
    with torch.no_grad():
        base = model(**batch).logits
    peftc.compile(model, SPEC)
    assert model.peftc.plan.trainable == 2 * 3072
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, base)
    structured = peftc.compile(llama(), SPEC.replace(")", ", structured=tensor)"))
    assert structured.peftc.plan.trainable == 2 * 3072 + 4


def test_a_projected_weight_starts_without_momentum() -> None:
    model = peftc.compile(llama(), SPEC).train()
    run = Run(model, steps=6)
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.05))
    for _ in range(3):
        stepped(run, optimizer)
    left = [p for p in optimizer.state if p.dim() == 2]
    trained = [p for n, p in run.trained().items() if n.endswith(".w")]
    assert not any(p is q for p in left for q in trained)
