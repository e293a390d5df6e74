"""Pruning: wanda by its inputs, and masks that go into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import peftc
from peftc.training import Run, choice
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches

if TYPE_CHECKING:
    from torch import Tensor


def test_inputs_are_weighed_as_wanda_does() -> None:
    spec = "prune(o, sparsity=0.5, score=wanda, scope=row)"
    model = llama()
    linear = model.model.layers[0].self_attn.o_proj
    seen: list[Tensor] = []
    hook = linear.register_forward_pre_hook(
        lambda _, x: seen.append(x[0].flatten(0, -2))
    )
    with torch.no_grad():
        for batch in batches()[:2]:
            model(**batch)
    hook.remove()
    scores = linear.weight.detach().abs() * torch.cat(seen).norm(dim=0)
    (wanted,) = choice.by_row([scores], 0.5)
    peftc.compile(model, spec)
    Run(model, calibration=batches()[:2])
    assert torch.equal(linear.get_buffer("peftc.o.prune.m"), wanted)


def test_a_pruned_model_and_its_merged_weights() -> None:
    model = peftc.compile(llama(), "prune(linear, sparsity=0.4, scope=local)")
    assert model.peftc.plan.trainable == 0
    Run(model).finalize()
    batch = batches()[0]
    with torch.no_grad():
        masked_logits = model(**batch).logits
        model.peftc.merge()
        torch.testing.assert_close(model(**batch).logits, masked_logits)
    for site in model.peftc.sites:
        weight = model.get_parameter(site.weight)
        assert int((weight == 0).sum()) == choice.removed(0.4, weight.numel())
