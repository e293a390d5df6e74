"""Plans: what is added where, and how much."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.driver import make_plan
from peftc.syntax.source import Source
from tests.views import toy, with_biases

if TYPE_CHECKING:
    from peftc.plan.types import Plan

TOY = toy()


def planned(text: str, *, seed: int = 0) -> Plan:
    return make_plan(Source("<spec>", text), TOY, seed=seed)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("lora(q, v, r=8)", 3_584),
        ("lora(linear, r=8)", 16_384),
        ("krona(q, v)", 448),
        ("ia3(k, v, ffn)", 384),
        ("adapter(attn, ffn, d=8)", 4_384),
        ("pfeiffer(ffn, reduction=16)", 1_160),
        ("parallel(ffn, d=8)", 2_192),
        ("bitfit(linear, create=true)", 1_024),
    ],
)
def test_counts_of_the_toy(spec: str, count: int) -> None:
    """The figures follow from the papers' formulas for this decoder."""
    assert planned(spec).trainable == count


def test_shared_tensors_count_once() -> None:
    plan = planned("vera(q, r=4)")
    assert plan.trainable == 2 * (4 + 64)
    shared = {t.shared for r in plan.rewrites for t in r.tensors if t.kind == "buffer"}
    assert len(shared) == 2


def test_two_of_a_method_at_a_site_are_told_apart() -> None:
    (first, _) = planned("lora(q, r=2) + lora(q, r=4)").rewrites
    assert [t.name for t in first.tensors] == [
        "lora.A",
        "lora.B",
        "lora#2.A",
        "lora#2.B",
    ]


def test_rewrites_are_in_the_order_of_the_model() -> None:
    roles = [r.site.role for r in planned("lora(v) + lora(q)").rewrites]
    assert roles == ["q", "v", "q", "v"]


@pytest.mark.parametrize("rank", ["1000000000000", "999999999999999999"])
def test_absurd_sizes_are_refused_before_anything_is_allocated(rank: str) -> None:
    with pytest.raises(PeftcError, match="PEFT302"):
        planned(f"lora(q, v, r={rank})")


def test_a_tied_head_is_not_rewritten() -> None:
    with pytest.raises(PeftcError, match="PEFT303"):
        planned("lora(head)")


def test_merge_classes() -> None:
    merges = {
        spec: planned(spec).rewrites[0].merge.kind
        for spec in ("lora(q)", "bitfit(q, create=true)", "adapter(ffn)")
    }
    assert merges == {
        "lora(q)": "exact",
        "bitfit(q, create=true)": "exact+bias",
        "adapter(ffn)": "none",
    }
    assert "gelu" in planned("adapter(ffn)").rewrites[0].merge.reason


def test_memory_adds_up() -> None:
    plan = planned("lora(q, v, r=8)")
    assert plan.memory is not None
    assert plan.memory.parameters == plan.memory.gradients == 4 * 3_584
    steps = 4 * 2 * len(plan.rewrites)  # AdamW counts steps for each tensor
    assert plan.memory.optimizer == 2 * 4 * 3_584 + steps
    assert plan.memory.base == 4 * plan.model.parameters


@pytest.mark.parametrize(
    ("base", "dtype", "width"),
    [
        ("float64", "auto", 8),
        ("float32", "auto", 4),
        ("bfloat16", "auto", 4),
        ("float64", "float32", 4),
        ("float32", "bfloat16", 2),
    ],
)
def test_memory_knows_the_dtype_of_new_tensors(
    base: str, dtype: str, width: int
) -> None:
    sites = tuple(replace(site, dtype=base) for site in TOY.sites)
    view = replace(TOY, sites=sites)
    plan = make_plan(Source("<spec>", "lora(q, v, r=8)"), view, dtype=dtype)
    assert plan.memory is not None
    assert plan.memory.parameters == width * plan.trainable


def test_buffers_are_stored_but_not_trained() -> None:
    memory = planned("vera(q, r=4)").memory
    assert memory is not None
    assert memory.parameters - memory.gradients == 4 * (4 * 64 + 64 * 4)


@pytest.mark.parametrize("dtype", ["float23", "int8", "torch.float32", ""])
def test_an_unknown_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(PeftcError, match="PEFT310"):
        make_plan(Source("<spec>", "lora(q)"), TOY, dtype=dtype)


def test_a_bias_site_needs_no_new_bias() -> None:
    plan = make_plan(Source("<spec>", "bitfit(q)"), with_biases(TOY))
    assert plan.rewrites[0].merge.kind == "exact"
