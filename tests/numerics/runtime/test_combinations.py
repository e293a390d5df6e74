"""Weighted sums of adapters: of what they change, not of their factors."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.numerics.matrix import METHODS, build, inputs
from tests.numerics.runtime.test_adapter_slots import several
from tests.numerics.runtime.tiny import llama, logits, refused, t5, tokens

if TYPE_CHECKING:
    from pathlib import Path

SPECS = {
    name: METHODS[name].spec
    for name in ("lora", "ia3", "loha", "dora", "houlsby", "gate", "mixed")
}


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1).double()


def same(got: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def through_pickle(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))


def copied(model: Any, source: str, name: str) -> None:
    """A slot with the values of another."""
    model.peftc.slots.add(name)
    for path, tensor in model.peftc.slots.tensors(name).items():
        tensor.data.copy_(model.peftc.slots.tensors(source)[path])


@pytest.mark.parametrize("name", list(SPECS))
def test_halves_of_equal_adapters_are_one(base: Any, name: str) -> None:
    model, ids = several(base, 1, spec=SPECS[name]), tokens()
    copied(model, "1", "2")
    slots = model.peftc.slots
    slots.combine("sum", {"1": 0.25, "2": 0.75})
    with slots.using("1"):
        expected = logits(model, ids)
    start = logits(model, ids)
    with slots.using("sum"):
        same(logits(model, ids), expected)
        slots.combine("sum", {"1": 0.0, "2": 0.0})
        with model.peftc.disabled():
            unchanged = logits(model, ids)
        assert torch.equal(logits(model, ids), unchanged)
    assert (start - expected).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "spec"),
    [
        ("gpt2", "lora(q, v, r=2) + ia3(k, ffn)"),
        ("bert", "gate(lora(q, v, r=2))"),
        ("mixtral", "dora(q, o, r=2) + parallel(ffn, d=3)"),
    ],
)
def test_families(family: str, spec: str) -> None:
    """By row as well: programs that name samples, fused and turned weights."""
    model = several(build(family, torch.float64), 1, 2, spec=spec)
    given = {name: torch.cat([t, t]) for name, t in inputs(family).items()}
    slots, found = model.peftc.slots, {}
    copied(model, "1", "3")
    slots.combine("sum", {"1": 0.25, "3": 0.75})
    with torch.no_grad():
        for name in ("1", "2", "sum"):
            with slots.using(name):
                found[name] = model(**given)[0]
        with slots.rows(["1", "2"] * (len(found["1"]) // 2)):
            rows = model(**given)[0]
    same(found["sum"], found["1"])
    same(rows[::2], found["1"][::2])
    same(rows[1::2], found["2"][1::2])
    assert (found["1"] - found["2"]).abs().max() > 1e-3


def test_products_are_summed_and_not_factors(base: Any) -> None:
    model, ids = several(base, 1, 2, spec="lora(q, v, r=2, alpha=2)"), tokens()
    whole = several(base, 1, spec="lora(q, v, r=4, alpha=4)")
    slots, weights = model.peftc.slots, {"1": 0.7, "2": -0.3}
    for path, tensor in whole.peftc.slots.tensors("1").items():
        parts = [
            slots.tensors(n)[path] * (w if path.endswith("B") else 1)
            for n, w in weights.items()
        ]
        tensor.data.copy_(torch.cat(parts, dim=int(path.endswith("B"))))
    slots.combine("sum", weights)
    with slots.using("sum"), whole.peftc.slots.using("1"):
        same(logits(model, ids), logits(whole, ids))


def test_other_weights_and_slots_are_no_other_graph(base: Any) -> None:
    model, ids = several(base, 1, 2, 3, spec="lora(q, v, r=2)"), tokens()
    slots = model.peftc.slots
    slots.combine("sum", {"1": 0.5, "2": 0.5})
    slots.activate("sum")
    first, captured = logits(model, ids), model.peftc.captures.count
    slots.combine("sum", {"2": 2.0, "3": -1.0})
    assert not torch.equal(logits(model, ids), first)
    slots.combine("sum", {"2": 2.0, "3": -1.0, "1": 0.1})
    logits(model, ids)
    slots.combine("sum", {"1": 0.5, "2": 0.5})
    assert torch.equal(logits(model, ids), first)
    assert model.peftc.captures.count == captured


def test_generation_and_gradients(base: Any) -> None:
    model, ids = several(base, 1, spec="lora(q, v, r=2)"), tokens()
    copied(model, "1", "2")
    slots = model.peftc.slots
    slots.combine("sum", {"1": 0.25, "2": 0.75})
    how = {"max_new_tokens": 4, "do_sample": False}
    slots.activate("1")
    expected = model.generate(ids, **how)
    model(input_ids=ids, labels=ids).loss.backward()
    whole = [t.grad for t in slots.tensors("1").values()]
    model.zero_grad()
    slots.activate("sum")
    assert torch.equal(model.generate(ids, **how), expected)
    model(input_ids=ids, labels=ids).loss.backward()
    for name, weight in (("1", 0.25), ("2", 0.75)):
        for tensor, grad in zip(slots.tensors(name).values(), whole, strict=True):
            assert grad is not None
            same(tensor.grad, weight * grad)


def test_an_encoder_and_its_decoder() -> None:
    model, ids = several(t5().double(), 1, spec="lora(q, v, r=2)"), tokens()
    copied(model, "1", "2")
    slots = model.peftc.slots
    slots.combine("sum", {"1": 0.25, "2": 0.75})
    how = {"max_new_tokens": 4, "do_sample": False}
    with slots.using("1"):
        expected = model.generate(ids, **how)
    with slots.using("sum"):
        assert torch.equal(model.generate(ids, **how), expected)


@pytest.mark.parametrize("how", [copy.deepcopy, through_pickle])
def test_copies_and_moves(base: Any, how: Any) -> None:
    model, ids = several(base, 1, 2, spec="lora(q, v, r=2)"), tokens()
    slots = model.peftc.slots
    slots.combine("sum", {"1": 0.5, "2": 0.5})
    slots.activate("sum")
    expected = logits(model, ids)
    other = how(model)
    for tensor in slots.tensors("1").values():
        tensor.data.mul_(2)
    assert torch.equal(logits(other, ids), expected)
    other.to(torch.float32)
    assert (logits(other, ids) - expected).abs().max() < 1e-5


def test_it_is_no_adapter(base: Any, tmp_path: Path) -> None:
    model = several(base, 1, 2, spec="lora(q, v, r=2)")
    slots = model.peftc.slots
    slots.combine("sum", {"1": 0.5, "2": 0.5})
    slots.activate("1")
    slots.activate("sum")
    assert (slots.active, slots.names[-1]) == ("sum", "sum")
    for action in (
        lambda: model.peftc.save(tmp_path),
        lambda: slots.save("sum", tmp_path),
        model.peftc.merge,
        lambda: slots.tensors("sum"),
        lambda: slots.combine("more", {"sum": 1.0}),
    ):
        with refused("PEFT655"):
            action()
    with refused("PEFT655"), slots.rows(["sum", "1"]):
        pass
    for name in ("sum", "1", "2"):  # active, in the model, part of it
        with refused("PEFT631"):
            slots.remove(name)
    slots.activate("default")
    slots.remove("sum")
    slots.remove("2")
    assert slots.names == ("default", "1")


def test_what_cannot_be_is_said(base: Any) -> None:
    slots = several(base, 1, spec="prefix(p=2) + prompt(p=2)").peftc.slots
    with refused("PEFT654", "PEFT654"):
        slots.combine("sum", {"1": 1.0})
    slots = several(base, 1, spec="lora(q, r=2)").peftc.slots
    with refused("PEFT650"):
        slots.combine("sum", {"9": 1.0})
    with refused("PEFT651"):
        slots.combine("1", {"default": 1.0})
    with refused("PEFT631"):
        slots.combine("sum", {})
