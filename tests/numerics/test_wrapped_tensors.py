"""Wrappers over tensors: clauses `on param`, around methods of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from peftc.driver import make_plan
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_text
from peftc.syntax.source import Source
from tests.numerics.runtime.tiny import llama, logits, tokens
from tests.views import toy

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.plan.types import Plan

TEXT = """
method masked(inner: method) on param where matrix {
  buffer m[...] = 1
  p' = m * p
}
method copied(inner: method, E: size = 3) on param where down {
  param P[E, ...] = p
  p' = mean[k: E](P[k])
}
method scaled(inner: method) on param where up {
  shared param c[] = 1
  p' = c * p
}
method halved(inner: method) on param { p' = 0.5 * p }
"""
INNER = {
    "lora": "lora(q, v, r=3)",
    "adapter": "adapter(ffn, d=4)",
    "prefix": "prefix(p=3)",
    "prefix-mlp": "prefix(p=2, mlp=6, embed=5)",
    "phm": "phm(ffn, terms=2, d=4)",
    "mam": "mam(p=2, d=6)",
    "gate": "gate(lora(q, v, r=3), pool=token)",
}
MERGING = {"lora"}


def planned(spec: str) -> Plan:
    return make_plan(Source("<spec>", TEXT + spec), toy())


def compiled(spec: str) -> Any:
    """A model with random tensors, masks included."""
    model = llama()
    peftc.compile(model, TEXT + spec)
    randomise(model)
    return model


def randomise(model: Any) -> None:
    torch.manual_seed(1)
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    for name, tensor in named.items():
        if ".peftc." in name and name.endswith(".m"):
            tensor.copy_(torch.rand_like(tensor) < 0.5)
        elif ".peftc." in name:
            torch.nn.init.normal_(tensor, std=0.3)


@pytest.mark.parametrize("inner", INNER.values(), ids=INNER)
def test_a_plan_reads_back(inner: str) -> None:
    plan = planned(f"masked(copied({inner}))")
    assert parse_plan(plan_text(plan)) == plan
    assert planned(f"masked({inner})").trainable == planned(inner).trainable


def tensors_of(model: Any) -> dict[str, torch.Tensor]:
    named = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: t for name, t in named.items() if ".peftc." in name}


@pytest.mark.parametrize("name", ["mam", "phm", "gate"])
def test_masked_is_the_method_with_masked_tensors(name: str) -> None:
    wrapped, plain = llama(), llama()
    peftc.compile(wrapped, f"{TEXT}masked({INNER[name]})")
    peftc.compile(plain, INNER[name])
    start = logits(plain)
    torch.testing.assert_close(logits(wrapped), start, rtol=1e-6, atol=1e-6)
    randomise(wrapped)
    found, own = tensors_of(wrapped), tensors_of(plain)
    for path, tensor in own.items():
        parts = path.split(".")
        masks = [n for n in found if n.endswith(f".{'.'.join(parts[-2:])}.m")]
        owner = path.partition(".peftc.")[0]
        here = [n for n in masks if n.startswith(f"{owner}.peftc.")] or masks
        with torch.no_grad():
            tensor.copy_(found[path] * (found[here[0]] if here else 1))
    torch.testing.assert_close(logits(wrapped), logits(plain), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("inner", "wrapper"),
    [
        (INNER["mam"], "masked(copied"),
        (INNER["prefix-mlp"], "halved"),
        (INNER["phm"], "copied"),
    ],
)
def test_saved_and_exported(inner: str, wrapper: str, tmp_path: Path) -> None:
    spec = f"{wrapper}({inner})" + ")" * wrapper.count("(")
    model = compiled(spec)
    wanted = logits(model)
    model.peftc.save(tmp_path / "own")
    loaded = llama()
    peftc.load(loaded, tmp_path / "own")
    assert torch.equal(logits(loaded), wanted)
    model.peftc.export(tmp_path / "out")
    given = llama()
    peftc.load(given, tmp_path / "out")
    torch.testing.assert_close(logits(given), wanted, rtol=1e-4, atol=1e-5)
    left = {m.name for m in given.peftc.plan.methods}
    assert left.isdisjoint({"masked", "copied", "halved"})


def test_it_merges_where_what_it_wraps_does() -> None:
    spec = "masked(copied(scaled(lora(q, v))))"
    assert {r.merge.kind for r in planned(spec).rewrites} == {"exact"}
    model = compiled(spec)
    wanted = logits(model)
    model.peftc.merge()
    torch.testing.assert_close(logits(model), wanted, rtol=1e-4, atol=1e-4)


def test_gradients_reach_what_is_not_masked() -> None:
    model = compiled("masked(lora(q, v, r=3))")
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    found = tensors_of(model)
    masks = [name for name in found if name.endswith(".m")]
    assert len(masks) == 8
    for name in masks:
        mask = found[name].bool()
        owner, _, rest = name.partition(".masked.")
        grad = found[f"{owner}.{rest.removesuffix('.m')}"].grad
        assert grad is not None
        assert not grad[~mask].any()
        assert grad[mask].any()


def test_what_is_up_and_what_shares_a_tensor() -> None:
    """The scale is one for all tensors of a site that the clause is for."""
    plan = planned("scaled(adapter(ffn, d=4))")
    names = [t.name for t in plan.rewrites[0].tensors]
    assert names == ["scaled.c", *(f"adapter.{n}" for n in ("D", "bd", "U", "bu"))]


def test_shared_tensors_stay_shared() -> None:
    plan = planned("copied(phm(ffn, terms=2, d=4), E=2)")
    groups = {t.shared for r in plan.rewrites for t in r.tensors if t.shared}
    assert len(groups) == 1
    once = planned("phm(ffn, terms=2, d=4)").trainable
    assert plan.trainable == 2 * once - 2 * 64  # bu of each of two layers is up
