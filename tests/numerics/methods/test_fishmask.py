"""FishMask: the elements with the largest Fisher information, exactly as many."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.training import Run
from peftc.training.choice import removed
from peftc.training.controls.select import examples
from peftc.training.labelled import count
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches

KEEP = 0.05
SPEC = f"fishmask(linear, keep={KEEP})"


def fisher(model: Any) -> dict[str, torch.Tensor]:
    """Squared gradients of single texts' log-likelihoods, summed over two batches."""
    found: dict[str, torch.Tensor] = {}
    for batch in batches()[:2]:
        for ids in batch["input_ids"]:
            model.zero_grad()
            logits = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            (-logits.gather(1, ids[1:, None]).sum()).backward()
            for name, p in model.named_parameters():
                found[name] = found.get(name, torch.zeros(())) + p.grad.square()
    return found


def test_the_support_has_the_largest_information() -> None:
    model = llama()
    information = fisher(copy.deepcopy(model))
    peftc.compile(model, SPEC)
    run = Run(model, calibration=batches()[:2])
    weights = [site.weight for site in model.peftc.sites]
    flat = torch.cat([information[name].flatten() for name in weights])
    mask = torch.cat([chosen(model, name).flatten() for name in weights])
    count = removed(KEEP, 15360)
    assert int(mask.sum()) == count == model.peftc.plan.trainable
    assert sum(p.numel() for p in run.trained().values()) == count
    assert flat[mask == 1].min() >= 0.999 * flat[mask == 0].max()


def chosen(model: Any, weight: str) -> torch.Tensor:
    """Ones at the chosen elements of a weight."""
    owner = model.get_submodule(weight.removesuffix(".weight"))
    places = next(t for n, t in owner.named_buffers() if n.endswith("fishmask.at"))
    mask = torch.zeros(owner.weight.numel()).index_fill(0, places, 1.0)
    return mask.view_as(owner.weight)


def test_only_the_chosen_elements_change() -> None:
    model = llama()
    before = copy.deepcopy(model)
    peftc.compile(model, SPEC).train()
    run = Run(model, calibration=batches()[:2])
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.1, weight_decay=0.1))
    for batch in batches()[:3]:
        run.loss(batch).backward()
        run.optimize(optimizer)
    run.finalize()
    state = sum(s["exp_avg"].numel() for s in optimizer.state.values())
    assert state == model.peftc.plan.trainable
    model.peftc.merge()
    for site in model.peftc.sites:
        old, new = (m.get_parameter(site.weight) for m in (before, model))
        assert torch.equal(old != new, chosen(model, site.weight) == 1)


def test_a_file_holds_the_chosen_elements_alone(tmp_path: Any) -> None:
    model = peftc.compile(llama(), SPEC)
    Run(model, calibration=batches()[:2])
    with torch.no_grad():
        for _, tensor in model.named_parameters():
            if tensor.requires_grad:
                tensor.normal_()
    path = model.peftc.save(tmp_path)
    again = peftc.load(llama(), tmp_path)
    batch = batches()[0]
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, again(**batch).logits)
    assert path.stat().st_size < 768 * (4 + 8) + 40_000


def test_a_site_that_keeps_nothing_is_left_out() -> None:
    model = peftc.compile(llama(), "fishmask(linear, keep=0.001)")
    sites = len(model.peftc.sites)
    Run(model, calibration=batches()[:1])
    assert model.peftc.plan.trainable == removed(0.001, 15360)
    assert len(model.peftc.sites) < sites
    model(**batches()[0])


def test_too_few_to_keep() -> None:
    model = peftc.compile(llama(), "fishmask(q, keep=0.0001)")
    with pytest.raises(PeftcError, match="PEFT332"):
        Run(model, calibration=batches()[:1])


class Logistic(nn.Module):
    """p(y = 1) = sigmoid(w x), as a model that returns its mean loss."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(3, 1, bias=False)


def test_squared_gradients_of_examples_are_the_information() -> None:
    """For logistic regression (p - y)^2 x^2, a closed form."""
    torch.manual_seed(0)
    model, x = Logistic(), torch.randn(5, 3)
    y = torch.tensor([0.0, 1, 1, 0, 1])
    total = torch.zeros(3)
    for example in examples([{"x": x, "labels": y}]):
        loss = nn.functional.binary_cross_entropy_with_logits(
            model.w(example["x"])[:, 0], example["labels"]
        )
        (grad,) = torch.autograd.grad(
            loss * count(model, example["labels"]), [model.w.weight]
        )
        total += grad[0].square()
    p = torch.sigmoid(model.w(x))[:, 0]
    wanted = ((p - y).square()[:, None] * x.square()).sum(0)
    torch.testing.assert_close(total, wanted.detach())
