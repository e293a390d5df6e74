"""The compiled forward in all the ways people call a model."""

from __future__ import annotations

import copy
import io
import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from accelerate.utils import extract_model_from_parallel

from tests.numerics.runtime.tiny import (
    added,
    compiled,
    hooked,
    llama,
    logits,
    plan_for,
    refused,
    tokens,
    twin,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def pair(**options: Any) -> tuple[Any, Any, Any]:
    """A base, its compiled copy, and a copy with hooks."""
    base = llama(layers=1)
    model = twin(base)
    compiled(model, **options)
    return base, model, hooked(twin(base), model)


def test_positional_and_named_arguments_and_labels() -> None:
    _, model, reference = pair()
    ids, mask = tokens(), torch.ones_like(tokens())
    calls: list[Callable[[Any], torch.Tensor]] = [
        lambda m: m(ids, mask).logits,
        lambda m: m(ids, attention_mask=mask, labels=ids).loss,
        lambda m: m(ids, return_dict=False)[0],
        lambda m: m(inputs_embeds=m.get_input_embeddings()(ids)).logits,
    ]
    for call in calls:
        with torch.no_grad():
            assert torch.equal(call(model), call(reference))


def test_gradients_reach_given_embeddings() -> None:
    _, model, reference = pair()
    found = []
    for one in (model, reference):
        embedded = one.get_input_embeddings()(tokens()).detach().requires_grad_(True)
        one(inputs_embeds=embedded, labels=tokens()).loss.backward()
        found.append(embedded.grad)
    assert torch.equal(*found)


def test_hidden_states_and_attentions() -> None:
    _, model, reference = pair()
    logits(model)
    wanted = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        mine = model(input_ids=tokens(), **wanted)
        expected = reference(input_ids=tokens(), **wanted)
    assert len(mine.hidden_states) == 2
    for name in ("hidden_states", "attentions"):
        for one, other in zip(mine[name], expected[name], strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_modes_are_one_graph_each() -> None:
    _, model, _ = pair()
    for _ in range(3):
        model.train()
        model(input_ids=tokens(), labels=tokens()).loss.backward()
        model.eval()
        logits(model)
    assert model.peftc.captures.count == 2


def test_dropout_follows_the_mode_of_the_owner() -> None:
    base = llama(layers=1)
    model = twin(base)
    compiled(model, plan=plan_for(model, init="normal(0.5)", dropout=0.5))
    assert torch.equal(logits(model), logits(model))
    model.train()
    assert not torch.equal(logits(model), logits(model))
    model.eval()
    assert torch.equal(logits(model), logits(model))


def test_autocast() -> None:
    _, model, reference = pair()
    with torch.autocast("cpu", torch.bfloat16):
        mine, expected = logits(model), logits(reference)
    torch.testing.assert_close(mine.float(), expected.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_of_the_whole_model_changes(dtype: torch.dtype) -> None:
    _, model, reference = pair()
    first = logits(model)
    mine, expected = logits(model.to(dtype)), logits(reference.to(dtype))
    assert mine.dtype == dtype
    torch.testing.assert_close(mine, expected, rtol=0.02, atol=0.02)
    if dtype == torch.float64:
        torch.testing.assert_close(mine, first.double(), rtol=0, atol=1e-5)


def test_float32_adapters_on_a_bfloat16_base() -> None:
    base = llama(layers=1).to(torch.bfloat16)
    model = twin(base)
    compiled(model)
    assert {p.dtype for _, p in added(model)} == {torch.float32}
    assert logits(model).dtype == torch.bfloat16
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    assert all(p.grad is not None for _, p in added(model))


# --- the base on purpose -----------------------------------------------------------


def test_disabled_is_the_base_bit_for_bit() -> None:
    base, model, _ = pair()
    said = logits(model)
    with model.peftc.disabled():
        assert torch.equal(logits(model), logits(base))
        inner = model.model(input_ids=tokens()).last_hidden_state
        assert torch.equal(inner, base.model(input_ids=tokens()).last_hidden_state)
        with model.peftc.disabled():
            pass
        assert torch.equal(logits(model), logits(base))
    assert torch.equal(logits(model), said)
    with refused("PEFT601"):
        q(model)


def q(model: Any) -> None:
    """Call an adapted linear by itself."""
    model.model.layers[0].self_attn.q_proj(torch.zeros(1, 32))


def test_disabled_ends_with_an_exception() -> None:
    _, model, _ = pair()
    said = logits(model)
    with pytest.raises(KeyError), model.peftc.disabled():
        raise KeyError
    assert torch.equal(logits(model), said)


def test_disabled_is_of_one_thread_and_one_model() -> None:
    base, model, _ = pair()
    other = twin(base)
    compiled(other)
    said = logits(model)
    inside, done = threading.Event(), threading.Event()
    found: list[torch.Tensor] = []

    def work() -> None:
        with model.peftc.disabled():
            found.append(logits(model))
            inside.set()
            done.wait(30)
            found.append(logits(model))

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    assert torch.equal(logits(model), said)
    done.set()
    thread.join()
    assert all(torch.equal(one, logits(base)) for one in found)
    with model.peftc.disabled():
        assert torch.equal(logits(other), said)


# --- copies --------------------------------------------------------------------------


def test_a_copy_is_a_model_of_its_own() -> None:
    base, model, _ = pair()
    said = logits(model)
    copied = copy.deepcopy(model)
    assert copied.peftc.model is copied
    assert copied.peftc.plan is model.peftc.plan
    with torch.no_grad():
        for _, parameter in added(copied):
            parameter.mul_(2)
    expected = logits(hooked(twin(base), copied))
    assert torch.equal(logits(copied), expected)
    assert torch.equal(logits(model), said)
    with copied.peftc.disabled():
        assert torch.equal(logits(copied), logits(base))
        assert torch.equal(logits(model), said)
    copied.peftc.remove()
    assert torch.equal(logits(copied), logits(base))
    assert torch.equal(logits(model), said)


def test_a_model_is_stored_whole() -> None:
    _, model, _ = pair()
    said = logits(model)
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    read = torch.load(file, weights_only=False)
    assert read.peftc.model is read
    assert torch.equal(logits(read), said)
    with refused("PEFT601"):
        q(read)


def test_state_dict_names_and_loading() -> None:
    base, model, _ = pair()
    said = logits(model)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    assert set(base.state_dict()) < set(state)
    with torch.no_grad():
        for _, parameter in added(model):
            parameter.zero_()
    assert torch.equal(logits(model), logits(base))
    model.load_state_dict(state)
    assert torch.equal(logits(model), said)
    model.load_state_dict({n: v.clone() for n, v in state.items()}, assign=True)
    assert torch.equal(logits(model), said)


def test_freezing_one_tensor_is_seen() -> None:
    _, model, _ = pair()
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    model.zero_grad()
    frozen, *rest = [p for _, p in added(model)]
    frozen.requires_grad_(False)
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    assert frozen.grad is None
    assert all(p.grad is not None for p in rest)


def test_a_forward_that_accelerate_rebinds_as_a_method() -> None:
    _, model, _ = pair()
    said = logits(model)
    model._original_forward = model.forward
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    assert model.forward.__self__ is model
    assert torch.equal(logits(model), said)


def test_shapes_and_threads() -> None:
    _, model, reference = pair()
    shapes = [(1, 1), (2, 6), (3, 6), (2, 9), (1, 5)]
    expected = [logits(reference, tokens(*shape)) for shape in shapes]
    found: dict[int, list[torch.Tensor]] = {}

    def work(index: int) -> None:
        found[index] = [logits(model, tokens(*shape)) for shape in shapes]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found.values():
        for mine, other in zip(one, expected, strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)
    assert len(found) == 3


def test_what_cannot_be_captured_is_said() -> None:
    model = llama(layers=1)
    compiled(model)
    model.lm_head.register_forward_hook(lambda *args: torch._dynamo.graph_break())
    with refused("PEFT604"):
        logits(model)


def test_the_handle_tells() -> None:
    model = llama(layers=1)
    handle = compiled(model)
    assert [site.role for site in handle.sites] == ["q", "v"]
    (named,) = handle.parameters_by_method().items()
    assert named[0] == "low"
    assert dict(named[1]) == dict(added(model))
    text = handle.graph()
    assert text.count("low.A") == 2
    assert handle.captures.count == 1
    assert handle.graph() == text
    report = handle.report()
    assert report["trainable"] == 2 * 32 + 32 * 2 + 2 * 32 + 16 * 2
    assert report["trainable_by_method"] == {"low": report["trainable"]}
    assert report["base"] == sum(p.numel() for p in llama(layers=1).parameters())
    assert report["graphs"] == 1
