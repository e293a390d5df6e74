"""Checkpointed layers are rewritten, and recompute what they computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.numerics.runtime.tiny import (
    added,
    bart,
    compiled,
    llama,
    plan_for,
    t5,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def step(model: Any, rows: int = 2) -> tuple[float, dict[str, Any], int]:
    """Loss, gradients, and scalars kept for the backward pass, of one step."""
    kept = [0]

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[0] += tensor.numel()
        return tensor

    ids = tokens(rows, 24)
    for _ in range(2):
        kept[0] = 0
        model.zero_grad()
        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
    return loss.item(), {name: p.grad for name, p in added(model)}, kept[0]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_with_dropout_in_base_and_method(backend: str) -> None:
    base = llama(attention_dropout=0.2).train()
    plain, saving = twin(base), twin(base)
    for model in (plain, saving):
        plan = plan_for(model, ("q", "k", "v"), init="normal(0.5)", dropout=0.3)
        compiled(model, plan=plan, backend=backend)
    saving.activation_checkpointing_enable()
    loss, gradients, kept = step(plain, rows=8)
    other_loss, other_gradients, other_kept = step(saving, rows=8)
    assert loss == other_loss
    for name, gradient in gradients.items():
        assert torch.equal(gradient, other_gradients[name]), name
    assert len(gradients) == 12
    assert other_kept < 0.5 * kept


def test_every_second_layer_and_back() -> None:
    base = llama(layers=2).train()
    model = twin(base)
    handle = compiled(model)
    expected = step(model)
    model.activation_checkpointing_enable()
    model.model.layers[0].gradient_checkpointing = False
    half = step(model)
    model.activation_checkpointing_disable()
    again = step(model)
    for one in (half, again):
        assert one[0] == expected[0]
        assert all(torch.equal(one[1][n], expected[1][n]) for n in one[1])
    assert half[2] < expected[2] == again[2]
    assert handle.captures.count <= 3


def test_hooks_for_reentrant_checkpointing_are_kept_away() -> None:
    model = llama(layers=1).train()
    model.activation_checkpointing_enable()
    embedding = model.get_input_embeddings()
    assert embedding._forward_hooks
    handle = compiled(model)
    assert not embedding._forward_hooks
    model.activation_checkpointing_enable()
    assert not embedding._forward_hooks
    step(model)
    handle.remove()
    model.activation_checkpointing_enable()
    assert embedding._forward_hooks


def by_model(model: Any) -> None:
    model.activation_checkpointing_enable()


def by_hand(model: Any) -> None:
    """Every flag there is, those of modules inside of layers too."""
    for module in model.modules():
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = reentrant_free


def reentrant_free(function: Any, *args: Any) -> Any:
    return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False)


@pytest.mark.parametrize("make", [t5, bart])
@pytest.mark.parametrize(("enable", "when"), [(by_hand, "before"), (by_model, "after")])
def test_an_encoder_decoder(
    make: Callable[[], Any], enable: Callable[[Any], None], when: str
) -> None:
    base = make().train()
    plain, saving = twin(base), twin(base)
    if when == "before":
        enable(saving)
    for model in (plain, saving):
        compiled(model, plan=plan_for(model, init="normal(0.5)", dropout=0.1))
    if when == "after":
        enable(saving)
    loss, gradients, kept = step(plain)
    other_loss, other_gradients, other_kept = step(saving)
    assert loss == other_loss
    for name, gradient in gradients.items():
        assert torch.equal(gradient, other_gradients[name]), name
    assert len(gradients) == len(other_gradients) == 12
    assert other_kept < kept
