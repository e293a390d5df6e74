"""Pruning of neurons and of heads: whole units, exactly as many, gone when merged."""

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

WIDTH = 8


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


def test_heads_by_how_much_the_loss_depends_on_them() -> None:
    model = llama()
    by_hand = copy.deepcopy(model)
    spec = f"prune_heads(attn, width={WIDTH}, sparsity=0.25)"
    peftc.compile(model, spec)
    Run(model, calibration=batches()[:2])
    found = masks(model, "prune_heads")
    assert sum(int((mask == 0).sum()) for mask in found) == 2  # of 2 layers x 4 heads
    scores = importance(by_hand)
    flat = torch.cat(found)
    assert scores[flat == 0].max() <= scores[flat == 1].min()
    with torch.no_grad():
        for mask, layer in zip(found, by_hand.model.layers, strict=True):
            layer.self_attn.o_proj.weight *= mask.repeat_interleave(WIDTH)
    assert_same(model, by_hand)


def importance(model: Any) -> torch.Tensor:
    """The mean over batches of |dL/dgate| of each head, by a gate in a hook."""
    gates = [torch.ones(4, requires_grad=True) for _ in model.model.layers]
    for gate, layer in zip(gates, model.model.layers, strict=True):

        def scaled(_: Any, x: Any, gate: torch.Tensor = gate) -> Any:
            return (x[0] * gate.repeat_interleave(WIDTH),)

        layer.self_attn.o_proj.register_forward_pre_hook(scaled)
    total = torch.zeros(8)
    for batch in batches()[:2]:
        grads = torch.autograd.grad(model(**batch).loss, gates)
        total += torch.cat(grads).abs()
    for layer in model.model.layers:
        layer.self_attn.o_proj._forward_pre_hooks.clear()
    return total


def assert_same(model: Any, other: Any) -> None:
    """Masked, merged and by hand, the logits are the same."""
    batch = batches()[0]
    with torch.no_grad():
        wanted = other(**batch).logits
        torch.testing.assert_close(model(**batch).logits, wanted)
        model.peftc.merge()
        torch.testing.assert_close(model(**batch).logits, wanted)
