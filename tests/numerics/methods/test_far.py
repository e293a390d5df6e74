"""FAR: the rows that moved most in priming are trained, and nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.driver import make_plan
from peftc.syntax.source import Source
from peftc.training import Run
from tests.models import bert
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches
from tests.views import toy

SPEC = "far(up, down, retain=0.25, prime=3, rate=0.01)"


def test_counts() -> None:
    source = Source("<spec>", "far(gate, up, down, retain=0.25)")
    assert make_plan(source, toy()).trainable == 12_288


def primed(model: Any, names: list[str]) -> dict[str, torch.Tensor]:
    """How far weights move in three steps of AdamW on the first two batches."""
    weights = {name: model.get_parameter(name) for name in names}
    before = {name: w.detach().clone() for name, w in weights.items()}
    optimizer = torch.optim.AdamW(list(weights.values()), lr=0.01, weight_decay=0)
    for index in (0, 1, 0):
        model(**batches()[index]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: w.detach() - before[name] for name, w in weights.items()}


def test_learners_are_the_rows_that_moved_most() -> None:
    model = llama()
    by_hand = copy.deepcopy(model)
    peftc.compile(model, SPEC)
    untouched = {
        n: t.clone() for n, t in model.state_dict().items() if "peftc" not in n
    }
    Run(model, calibration=batches()[:2])
    weights = [site.weight for site in model.peftc.sites]
    for name, moved in primed(by_hand, weights).items():
        owner = model.get_submodule(name.removesuffix(".weight"))
        tensors = dict((*owner.named_buffers(), *owner.named_parameters()))
        tensors = {path.rpartition(".")[2]: t for path, t in tensors.items()}
        order = moved.abs().sum(1).argsort(descending=True, stable=True)
        rows = set(order[: len(tensors["V"])].tolist())
        delta = tensors["R"] @ tensors["V"]
        assert set(delta.abs().sum(1).nonzero().flatten().tolist()) == rows
        kept = torch.zeros(len(moved)).index_fill(0, torch.tensor(sorted(rows)), 1.0)
        torch.testing.assert_close(delta, kept[:, None] * moved, rtol=1e-4, atol=1e-6)
    for name, value in untouched.items():
        assert torch.equal(model.state_dict()[name], value)


def test_only_learners_change_and_merging_puts_them_back() -> None:
    model = peftc.compile(bert(), SPEC).train()
    before = {n: t.clone() for n, t in model.state_dict().items() if "peftc" not in n}
    ids = batches()[0]["input_ids"]
    batch = {"input_ids": ids, "labels": ids[:, 0] % 2}
    run = Run(model, calibration=[batch])
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=0.05))
    for _ in range(3):
        run.loss(batch).backward()
        run.optimize(optimizer)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        model.peftc.merge()
        torch.testing.assert_close(model(input_ids=ids).logits, logits)
    for site in model.peftc.sites:
        changed = (model.get_parameter(site.weight) != before[site.weight]).any(1)
        assert int(changed.sum()) == -(-site.size("out") // 4)
        offsets = model.get_parameter(site.bias) != before[site.bias]
        assert bool((changed | ~offsets).all())


def test_codes_do_not_learn() -> None:
    model = peftc.compile(llama(), f"quantize(up) + {SPEC}")
    with pytest.raises(PeftcError, match="PEFT333"):
        Run(model, calibration=batches()[:1])
