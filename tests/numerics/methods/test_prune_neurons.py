"""Pruning of neurons: whole ones, exactly as many, and gone when merged."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import peftc
from peftc.training import Run
from peftc.training.choice import removed
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches


def masks(model: Any, method: str) -> list[torch.Tensor]:
    state = model.state_dict()
    return [t for name, t in state.items() if name.endswith(f"{method}.m")]


@pytest.mark.parametrize("score", ["magnitude", "taylor", "random"])
def test_neurons(score: str) -> None:
    model = llama()
    by_hand = copy.deepcopy(model)
    peftc.compile(model, f"prune_neurons(ffn, sparsity=0.25, score={score})")
    Run(model, calibration=batches()[:2])
    layers = by_hand.model.layers
    for mask, layer in zip(masks(model, "prune_neurons"), layers, strict=True):
        assert int((mask == 0).sum()) == removed(0.25, 48)
        with torch.no_grad():  # what is removed is the neuron with all that makes it
            for linear in (layer.mlp.up_proj, layer.mlp.gate_proj):
                linear.weight *= mask[:, None]
            layer.mlp.down_proj.weight *= mask
    assert_same(model, by_hand)


def test_the_smallest_columns_go() -> None:
    model = llama()
    norms = [layer.mlp.down_proj.weight.norm(dim=0) for layer in model.model.layers]
    peftc.compile(model, "prune_neurons(ffn, sparsity=0.25)")
    Run(model)
    for mask, norm in zip(masks(model, "prune_neurons"), norms, strict=True):
        assert norm[mask == 0].max() <= norm[mask == 1].min()


def assert_same(model: Any, other: Any) -> None:
    """Masked, merged and by hand, the logits are the same."""
    batch = batches()[0]
    with torch.no_grad():
        wanted = other(**batch).logits
        torch.testing.assert_close(model(**batch).logits, wanted)
        model.peftc.merge()
        torch.testing.assert_close(model(**batch).logits, wanted)
