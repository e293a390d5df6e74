"""Adapters one after the other: as a spec that has them all at once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.api import compile
from peftc.plan.stacking import stacked
from tests.numerics.runtime.test_adapter_slots import move, several
from tests.numerics.runtime.tiny import llama, logits, refused, t5, tokens, twin

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SPECS = [
    "lora(q, v, r=2)",
    "dora(q, v, r=2) + ia3(q, v, ffn)",
    "parallel(ffn, d=3) + vera(q, o, r=4)",
    "gate(lora(q, v, r=2))",
    "prefix(p=2)",
]


@pytest.fixture(scope="module")
def base() -> Any:
    return llama(layers=1).double()


def draw(model: Any, source: Any) -> None:
    """Give a model the random tensors of another for each of its adapters: a spec that
    has both draws them for itself."""
    for path, tensor in model.named_buffers():
        if ".peftc." in path:
            tensor.copy_(source.get_buffer(path.replace("_2", "")))


def put(model: Any, *adapters: Mapping[str, torch.Tensor]) -> None:
    """Give a model whose spec has several in turn the values of adapters, in turn."""
    own = model.peftc.slots.tensors("default")
    given = [dict(one) for one in adapters]
    for path, tensor in own.items():
        plain = path.replace("_2", "")
        values = given["_2" in path] if plain in given["_2" in path] else given[-1]
        tensor.data.copy_(values.pop(plain))
    assert not any(given)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.partition("(")[0])
def test_a_stack_is_a_spec_with_both(base: Any, spec: str) -> None:
    model, ids = several(base, 1, 2, spec=spec), tokens()
    slots = model.peftc.slots
    slots.stack("both", ["1", "2"])
    whole = compile(twin(base), f"{spec} + {spec}")
    put(whole, slots.tensors("1"), slots.tensors("2"))
    draw(whole, model)
    expected = logits(whole, ids)
    slots.activate("both")
    torch.testing.assert_close(logits(model, ids), expected, rtol=0, atol=1e-12)
    how = {"max_new_tokens": 3, "do_sample": False}
    assert torch.equal(model.generate(ids, **how), whole.generate(ids, **how))
    with slots.using("1"):
        assert (logits(model, ids) - expected).abs().max() > 1e-4


def other(base: Any, spec: str, folder: Path, seed: int = 7) -> Any:
    """A model with another spec, as if trained, and saved."""
    model = compile(twin(base), spec)
    move(model.peftc.slots.tensors("default"), seed)
    model.peftc.save(folder)
    return model


@pytest.mark.parametrize("spec", ["prefix(p=2)", "vera(q, o, r=4) + houlsby(d=3)"])
def test_an_adapter_of_another_spec(base: Any, spec: str, tmp_path: Path) -> None:
    model, ids = several(base, 1, spec=SPECS[0]), tokens()
    alone = other(base, spec, tmp_path)
    slots = model.peftc.slots
    slots.add_other("other", tmp_path)
    with slots.using("other"):
        assert torch.equal(logits(model, ids), logits(alone, ids))
    slots.stack("both", ["1", "other"])
    whole = compile(twin(base), f"{SPECS[0]} + {spec}")
    put(whole, slots.tensors("1"), slots.tensors("other"))
    with slots.using("both"):
        got, captured = logits(model, ids), model.peftc.captures.count
        torch.testing.assert_close(got, logits(whole, ids), rtol=0, atol=1e-12)
    with slots.using("1"), slots.using("other"), slots.using("both"):
        logits(model, ids)
    assert model.peftc.captures.count == captured


def test_new_values_copies_and_moves(base: Any, tmp_path: Path) -> None:
    model, ids = several(base, 1, spec=SPECS[0]), tokens()
    other(base, "prefix(p=2)", tmp_path)
    slots = model.peftc.slots
    slots.add_other("other", tmp_path)
    slots.stack("both", ["1", "other"])
    slots.activate("both")
    before, twin_of = logits(model, ids), copy.deepcopy(model)
    move(slots.tensors("1"), 8)
    assert not torch.equal(logits(model, ids), before)
    assert torch.equal(logits(twin_of, ids), before)
    twin_of.to(torch.float32)
    assert (logits(twin_of, ids) - before).abs().max() < 1e-5


def test_gradients_reach_all(base: Any) -> None:
    model, ids = several(base, 1, 2, spec=SPECS[0]), tokens()
    slots = model.peftc.slots
    slots.stack("both", ["1", "2"])
    whole = compile(twin(base), f"{SPECS[0]} + {SPECS[0]}")
    put(whole, slots.tensors("1"), slots.tensors("2"))
    slots.activate("both")
    for one in (model, whole):
        one.train()(input_ids=ids, labels=ids).loss.backward()
    expected = [t.grad for t in whole.peftc.slots.tensors("default").values()]
    got = {(n, p): t.grad for n in "12" for p, t in slots.tensors(n).items()}
    assert sum(g.double().norm() for g in expected) > 0
    total, wanted = sum(g.sum() for g in got.values()), sum(g.sum() for g in expected)
    torch.testing.assert_close(total, wanted)


def test_names_are_kept_apart(base: Any) -> None:
    plan = several(base, spec="ia3(k) + vera(q, v, r=2)").peftc.plan
    joined = stacked([plan, plan])
    names = [t.name for r in joined.plan.rewrites for t in r.tensors]
    assert {"vera.A", "vera#2.A", "ia3.l", "ia3#2.l"} <= {*names}
    for rewrite, sources in zip(joined.plan.rewrites, joined.sources, strict=True):
        assert list(sources) == [t.name for t in rewrite.tensors]
        assert len({rewrite.storage(t) for t in rewrite.tensors}) == len(sources)


def test_what_cannot_be_is_said(base: Any, tmp_path: Path) -> None:
    slots = several(base, 1, spec="prompt(p=2)").peftc.slots
    with refused("PEFT656"):
        slots.stack("both", ["1", "1"])
    other(base, SPECS[0], tmp_path)
    slots.add_other("other", tmp_path)
    with refused("PEFT651"):
        slots.add_other("1", tmp_path)
    with refused("PEFT655"):
        slots.save("other", tmp_path)
    slots.stack("one", ["other"])
    with refused("PEFT631"):
        slots.remove("other")
    slots.remove("one")
    slots.remove("other")
    assert slots.names == ("default", "1")
    stranger = several(llama(seed=5, layers=1).double(), 1)
    with refused("PEFT625"):
        stranger.peftc.slots.add_other("x", tmp_path)


def test_a_part_that_runs_by_itself(tmp_path: Path) -> None:
    base = t5()
    other(base, "lora(q, r=2) @ enc", tmp_path)
    model = compile(twin(base), "lora(q, r=2) @ dec")
    with refused("PEFT656"):
        model.peftc.slots.add_other("other", tmp_path)
