"""Pruning of heads: by how much the loss depends on them, exactly as many."""

from __future__ import annotations

import copy
from typing import Any

import torch

import peftc
from peftc.training import Run
from tests.numerics.methods.test_prune_neurons import assert_same, masks
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import batches

WIDTH = 8


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
