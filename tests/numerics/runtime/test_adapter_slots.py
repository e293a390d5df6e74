"""Slots: exchanged without a capture, each as if it were the model's only adapter."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.api import compile
from tests.numerics.runtime.tiny import llama, logits, refused, tokens, twin

if TYPE_CHECKING:
    from pathlib import Path

SPEC = "lora(q, v, r=2) + vera(up, down, r=4)"


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1)


def tuned(base: Any, seed: int, spec: str = SPEC) -> Any:
    """A compiled copy whose tensors are as if trained."""
    model = compile(twin(base), spec)
    move(model.peftc.slots.tensors("default"), seed)
    return model


def move(tensors: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / 5)


def several(base: Any, *seeds: int, spec: str = SPEC, **options: Any) -> Any:
    """A model with slots `1`, `2`, ... as if trained."""
    model = compile(twin(base), spec, **options)
    for seed in seeds:
        model.peftc.slots.add(str(seed))
        move(model.peftc.slots.tensors(str(seed)), seed)
    return model


def loss(model: Any, ids: torch.Tensor) -> torch.Tensor:
    model.zero_grad()
    value: torch.Tensor = model.train()(input_ids=ids, labels=ids).loss
    value.backward()
    model.eval()
    return value.detach()


def test_each_is_as_if_alone_and_nothing_is_captured_anew(base: Any) -> None:
    model, ids = several(base, 1, 2), tokens()
    alone = {str(seed): tuned(base, seed) for seed in (1, 2)}

    def same(name: str) -> None:
        model.peftc.slots.activate(name)
        one = alone[name]
        assert torch.equal(loss(model, ids), loss(one, ids))
        for path, tensor in one.peftc.slots.tensors("default").items():
            assert torch.equal(model.get_parameter(path).grad, tensor.grad)
        assert torch.equal(logits(model, ids), logits(one, ids))
        cached = {"max_new_tokens": 4, "do_sample": False}
        assert torch.equal(model.generate(ids, **cached), one.generate(ids, **cached))

    same("1")
    captured = model.peftc.captures.count
    same("2")
    same("1")
    assert model.peftc.captures.count == captured


def test_a_new_one_starts_as_the_compiled_model_does(base: Any) -> None:
    model, ids = tuned(base, 1), tokens()
    start = logits(compile(twin(base), SPEC), ids)
    model.peftc.slots.add("new")
    assert not torch.equal(logits(model, ids), start)
    with model.peftc.slots.using("new"):
        assert model.peftc.slots.active == "new"
        assert torch.equal(logits(model, ids), start)
    assert model.peftc.slots.active == "default"
    with model.peftc.slots.using(None):
        assert torch.equal(logits(model, ids), logits(twin(base), ids))


def test_one_that_is_added_in_inference_can_be_trained(base: Any) -> None:
    model, ids = several(base, 1), tokens()
    with torch.inference_mode():
        model.peftc.slots.add("new")
    model.peftc.slots.activate("new")
    loss(model, ids)
    assert all(t.grad is not None for t in model.peftc.slots.tensors("new").values())


def test_an_optimizer_keeps_the_tensors_of_its_slot(base: Any) -> None:
    model, ids = several(base, 1), tokens()
    slots = model.peftc.slots
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.1)
    other = {n: t.detach().clone() for n, t in slots.tensors("1").items()}
    loss(model, ids)
    slots.activate("1")
    before = logits(model, ids)
    optimizer.step()
    assert torch.equal(logits(model, ids), before)
    assert all(torch.equal(t, other[n]) for n, t in slots.tensors("1").items())
    slots.activate("default")
    assert {id(p) for p in trained} == {
        id(p) for p in model.parameters() if p.requires_grad
    }
    assert not torch.equal(logits(model, ids), before)


def test_files_are_those_of_a_model_with_one(base: Any, tmp_path: Path) -> None:
    one = tuned(base, 1)
    one.peftc.save(tmp_path / "one")
    model = compile(twin(base), SPEC)
    model.peftc.slots.add("read", tmp_path / "one")
    assert model.peftc.slots.names == ("default", "read")
    written = model.peftc.slots.save("read", tmp_path / "again")
    assert written.read_bytes() == (tmp_path / "one" / written.name).read_bytes()
    assert model.peftc.slots.active == "default"
    with refused("PEFT620"):
        model.peftc.slots.add("no", tmp_path)
    assert model.peftc.slots.names == ("default", "read")


def test_the_model_moves_and_they_follow(base: Any) -> None:
    model, ids = several(base, 1), tokens()
    model.to(torch.float64)
    model.peftc.slots.activate("1")
    kinds = {p.dtype for p in model.parameters()}
    assert kinds == {torch.float64}
    expected = logits(tuned(base, 1), ids)
    assert (logits(model, ids) - expected).abs().max() < 1e-5


def test_what_is_frozen_is_frozen_in_its_slot_alone(base: Any) -> None:
    model = several(base, 1)
    slots = model.peftc.slots
    path, tensor = next(iter(slots.tensors("1").items()))
    tensor.requires_grad_(False)
    slots.activate("1")
    assert not model.get_parameter(path).requires_grad
    slots.activate("default")
    assert model.get_parameter(path).requires_grad


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_copies_have_slots_of_their_own(base: Any, how: str) -> None:
    model, ids = several(base, 1), tokens()
    if how == "copy":
        twin_of = copy.deepcopy(model)
    else:
        twin_of = pickle.loads(pickle.dumps(model))
    move(model.peftc.slots.tensors("1"), 5)
    twin_of.peftc.slots.activate("1")
    assert torch.equal(logits(twin_of, ids), logits(tuned(base, 1), ids))
    assert model.peftc.slots.active == "default"


def test_the_state_dict_has_the_active_one(base: Any) -> None:
    model = several(base, 1)
    keys = set(model.state_dict())
    model.peftc.slots.activate("1")
    state = model.state_dict()
    assert set(state) == keys
    for path, tensor in model.peftc.slots.tensors("1").items():
        assert torch.equal(state[path], tensor)


def test_what_cannot_be_is_said(base: Any) -> None:
    slots = several(base, 1).peftc.slots
    with refused("PEFT650"):
        slots.activate("2")
    with refused("PEFT651"):
        slots.add("1")
    with refused("PEFT631"):
        slots.remove("default")
    slots.remove("1")
    assert slots.names == ("default",)
    assert repr(slots) == "<slots: [default]>"


def test_not_while_merged(base: Any) -> None:
    model = several(base, 1, spec="lora(q, v, r=2)")
    model.peftc.merge()
    with refused("PEFT631"):
        model.peftc.slots.activate("1")
    model.peftc.unmerge()
    model.peftc.slots.activate("1")
