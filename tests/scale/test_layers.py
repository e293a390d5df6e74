"""Layers that are captured one by one compute what the model does as one graph."""

from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from peftc.api import compile, load
from peftc.runtime.bind import check_inside, inside
from tests.numerics.runtime.tiny import (
    assert_same,
    bart,
    compiled,
    hooked,
    llama,
    logits,
    plan_for,
    refused,
    snapshot,
    t5,
    tokens,
    twin,
)
from tests.scale.work import SPEC, adapted, gradients, loss_of, shake

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("kept_views")
LAYERS = 4


def trained(model: Any) -> tuple[float, Any]:
    """The loss and the gradients of one step."""
    loss = loss_of(model)
    loss.backward()
    return loss.item(), gradients(model)


@pytest.mark.parametrize(
    ("spec", "graphs"),
    [
        # The first layer's input needs no gradient, that of the others does.
        (SPEC, 2),
        ("lora(q, r=2) @ layers(0..1) + lora(q, r=4) @ layers(2..3)", 3),
        ("vera(q, v, r=4) + adapter(ffn, d=4)", 2),
        ("prefix(attention, p=3, positions=keep) + ia3(k, v)", 2),
        # The last norm and the head are in no layer and have entries of their own.
        ("norm_tuning(norm) + lora(head, r=2)", 4),
        ("qlora(r=2)", 2),
    ],
)
def test_numbers_are_those_of_the_whole_model(spec: str, graphs: int) -> None:
    loss, expected = trained(adapted(spec, LAYERS))
    model = adapted(spec, LAYERS, entries="layers")
    for _ in range(2):
        model.zero_grad()
        found, gradient = trained(model)
    assert found == loss
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)
    assert model.peftc.captures.count == graphs


def test_a_layer_runs_with_what_is_inside_of_it() -> None:
    """One graph runs all layers after the first: each with its own tensors, whatever
    these are later."""
    base = llama(layers=LAYERS)
    model = twin(base)
    compiled(model, entries="layers")
    shake(model)
    with torch.no_grad():
        for layer in (0, 2, 3, 1):
            for name, parameter in model.model.layers[layer].named_parameters():
                if ".peftc." in name:
                    parameter.mul_(-1.5)
            reference = hooked(twin(base), model)
            said = logits(model, use_cache=False)
            assert torch.equal(said, logits(reference, use_cache=False))
    assert model.peftc.captures.count == 1


def test_tensors_of_another_layer_are_out_of_reach() -> None:
    """A layer is told paths that begin at itself: those of another are no such paths,
    and so are the same for kin."""
    handle = compiled(llama(layers=2), entries="layers")
    first, second = (entry.layout for entry in handle.entries)
    assert first.kin is second.kin
    wrong = replace(first, reads=(*first.reads[:-1], second.reads[-1]))
    with refused("PEFT619"):
        check_inside(wrong)
    for entry in handle.entries:
        code = entry._forward().__wrapped__  # type: ignore[attr-defined]
        held = dict(zip(code.__code__.co_freevars, code.__closure__, strict=True))
        assert held["module"].cell_contents is entry.module
        reads = held["reads"].cell_contents
        assert all(type(name) is str for names in reads for name in names)


def test_layers_of_other_ranks_or_numbers_are_no_kin() -> None:
    model = llama(layers=3)
    plan = plan_for(model)
    program = plan.rewrites[-1].programs[0]
    scaled = replace(program.steps[-1], coefs=(1.0, 3.0))
    last = replace(program, steps=(*program.steps[:-1], scaled))
    other = replace(plan.rewrites[-1], programs=(last,))
    handle = compiled(
        model,
        plan=replace(plan, rewrites=(*plan.rewrites[:-1], other)),
        entries="layers",
    )
    kin = [entry.layout.kin for entry in handle.entries]
    assert kin[0] is kin[1] is not kin[2]


def test_what_needs_the_whole_model_is_refused() -> None:
    for spec, count in (
        ("prompt(p=2)", 1),
        ("prefix(p=2)", 2),
        ("ladder(reduction=2)", 1),
    ):
        model = llama()
        before = snapshot(model)
        with refused(*["PEFT615"] * count):
            compile(model, spec, entries="layers")
        assert_same(snapshot(model), before)
    with refused("PEFT616"):
        compile(llama(), SPEC, entries="blocks")


@pytest.mark.slow
def test_generation_records_and_copies() -> None:
    whole, model = adapted(), adapted(entries="layers")
    text = {"max_new_tokens": 4, "do_sample": False}
    expected = whole.generate(tokens(), **text)
    assert torch.equal(model.generate(tokens(), **text), expected)
    for twin_ in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(logits(twin_), logits(whole))
        kin = {entry.layout.kin for entry in twin_.peftc.entries}
        assert len(kin) == 1
        assert kin.isdisjoint({model.peftc.entries[0].layout.kin})
    assert all(check.verdict != "failed" for check in model.peftc.verify())
    found = model(tokens(), output_hidden_states=True).hidden_states
    seen = whole(tokens(), output_hidden_states=True).hidden_states
    assert all(torch.equal(one, two) for one, two in zip(found, seen, strict=True))


def test_removal_gives_the_model_back() -> None:
    model = llama()
    before = snapshot(model)
    compiled(model, entries="layers").remove()
    assert_same(snapshot(model), before)


def test_files_fit_both_kinds_of_entries(tmp_path: Path) -> None:
    model = adapted(entries="layers")
    model.peftc.save(tmp_path)
    whole = load(llama(), tmp_path)
    again = load(llama(), tmp_path, entries="layers")
    assert torch.equal(logits(whole), logits(model))
    assert torch.equal(logits(again), logits(model))


def test_each_sample_may_have_an_adapter_of_its_own() -> None:
    expected = []
    for model in (adapted(), adapted(entries="layers")):
        model.peftc.slots.add("other")
        model.peftc.slots.activate("other")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if ".peftc." in name:
                    parameter.fill_(0.1)
        with model.peftc.slots.rows(["default", "other"]):
            expected.append(logits(model))
    assert torch.equal(*expected)


def gpt2() -> Any:
    """A model with fused rows of queries, keys and values."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32}
    config = GPT2Config(vocab_size=64, bos_token_id=1, eos_token_id=1, **sizes)
    return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("make", [gpt2, t5, bart], ids=lambda make: make.__name__)
def test_other_architectures(make: Callable[[], Any]) -> None:
    found = []
    for entries in ("model", "layers"):
        model = compile(make(), "lora(q, v, up, r=2)", entries=entries)
        shake(model)
        found.append(trained(model))
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-7)


def test_a_layer_that_reads_another_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were a layer bound to another by mistake, its capture would not pass."""
    model = adapted(entries="layers")
    first = model.model.layers[0]

    def bound_to_the_first(original: Any, module: Any, plan: Any) -> Any:
        return inside(original, first, plan)

    monkeypatch.setattr("peftc.runtime.entry.inside", bound_to_the_first)
    with refused("PEFT619"):
        logits(model)
