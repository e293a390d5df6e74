"""Checkpointed layers are rewritten, and recompute what they computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import StaticCache

import peftc
from tests.numerics.runtime.tiny import (
    added,
    bart,
    compiled,
    llama,
    plan_for,
    refused,
    t5,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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


@pytest.mark.parametrize("backend", ["eager", "plain", "triton", "aot_eager"])
def test_blocks_that_one_asks_for(backend: str) -> None:
    base = llama(attention_dropout=0.2).train()
    found = []
    for every in (0, 2, 1):
        model = twin(base)
        options: Any = {"backend": backend, "checkpoint_every": every}
        plan = plan_for(model, ("q", "k", "v"), init="normal(0.5)", dropout=0.3)
        compiled(model, plan=plan, **options)
        found.append(step(model, rows=8))
    (loss, gradients, kept), (_, _, half), (_, _, least) = found
    for other, others, _ in found[1:]:
        assert other == loss
        for name, gradient in gradients.items():
            assert torch.equal(gradient, others[name]), name
    assert least < 0.35 * kept
    assert 0.5 * (kept + least) < half < 0.75 * kept


@pytest.mark.parametrize("make", [t5, bart])
def test_blocks_of_an_encoder_and_a_decoder(make: Callable[[], Any]) -> None:
    base = make().train()
    found = []
    for every in (0, 1):
        model = twin(base)
        plan = plan_for(model, init="normal(0.5)", dropout=0.1)
        compiled(model, plan=plan, checkpoint_every=every)
        found.append(step(model))
    (loss, gradients, kept), (other, others, less) = found
    assert loss == other
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)
    assert less < 0.5 * kept


def test_blocks_that_change_a_cache_are_not_computed_twice() -> None:
    base = llama(layers=1).train()
    found = []
    for every in (0, 1):
        model = twin(base)
        compiled(model, checkpoint_every=every)
        cache = StaticCache(config=model.config, max_cache_len=16)
        given: Any = {"past_key_values": cache, "use_cache": True}
        model(input_ids=tokens(), labels=tokens(), **given).loss.backward()
        gradients = [p.grad for _, p in added(model)]
        layer: Any = cache.layers[0]
        found.append([*gradients, layer.keys, layer.values])
    assert found[0][-1].count_nonzero() == 2 * 2 * 6 * 8
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("make", "spec"), [(llama, "lora(q, head, r=2)"), (t5, "lora(q, up, r=2)")]
)
def test_a_switch_that_was_on_before_compiling(
    make: Callable[[], Any], spec: str
) -> None:
    base = make().train()
    found = []
    for when in ("never", "before", "after"):
        model = twin(base)
        if when == "before":
            model.gradient_checkpointing_enable()
        peftc.compile(model, spec)
        if when == "after":
            model.gradient_checkpointing_enable()
        for _, parameter in added(model):
            torch.nn.init.constant_(parameter, 0.1)
        found.append(step(model))
    for loss, gradients, _ in found[1:]:
        assert loss == found[0][0]
        for name, gradient in found[0][1].items():
            assert torch.equal(gradient, gradients[name]), name
    assert found[1][2] == found[2][2] < 0.7 * found[0][2]


def test_an_interval_is_a_number_of_blocks() -> None:
    for given in (-1, 0.5):
        model = llama(layers=1)
        with refused("PEFT618"):
            compiled(model, checkpoint_every=given)
        assert "forward" not in vars(model)
    with refused("PEFT618"):
        compiled(llama(layers=1), checkpoint_every=1, entries="layers")


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


def test_an_adapter_that_is_loaded(tmp_path: Path) -> None:
    base = llama()
    peftc.compile(twin(base), "lora(q, v, r=2)").peftc.save(tmp_path)
    plain, saving = (
        peftc.load(twin(base), tmp_path, checkpoint_every=every).train()
        for every in (0, 1)
    )
    loss, gradients, kept = step(plain)
    other_loss, other_gradients, other_kept = step(saving)
    assert loss == other_loss
    assert other_kept < kept / 2
    for name, gradient in gradients.items():
        assert torch.equal(gradient, other_gradients[name]), name
