"""The text of a plan is read back to the same plan."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftc.diagnostics.core import PeftcError
from peftc.driver import make_plan
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_hash, plan_text
from peftc.plan.record import plan_record
from peftc.syntax.source import Source
from tests.views import toy, with_biases

TERMS = (
    "lora(q, v, r=3, dropout=5%)",
    "lora(linear, rs=true)",
    "krona(k, o)",
    "ia3(k, v, ffn)",
    "adapter(attn, ffn, d=7, act=silu)",
    "pfeiffer(ffn)",
    "parallel(ffn, d=5) @ layers(1)",
    "bitfit(linear, norm)",
    "gate(lora(up) + ia3(up))",
    "vera(q, v)",
    "full(down)",
    "norm_tuning(norm)",
)

VIEW = with_biases(toy())


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(TERMS), min_size=1, max_size=4), st.integers(0, 9))
def test_round_trip(terms: list[str], seed: int) -> None:
    plan = make_plan(Source("<spec>", " + ".join(terms)), VIEW, seed=seed)
    text = plan_text(plan)
    again = parse_plan(text)
    assert again == plan
    assert plan_text(again) == text
    assert plan_hash(again) == plan_hash(plan)


def test_rows_and_experts_are_read_back() -> None:
    rows = ((0, 4), (8, 12))
    sites = (replace(s, rows=rows, experts=3) for s in VIEW.sites if s.role == "up")
    view = replace(VIEW, sites=tuple(sites))
    plan = make_plan(Source("<spec>", "lora(up, r=2)"), view)
    assert plan.rewrites[0].tensors[0].shape[0] == 3
    assert parse_plan(plan_text(plan)) == plan


def test_the_record_is_plain_and_versioned() -> None:
    import json

    plan = make_plan(Source("<spec>", "lora(q, r=2)"), VIEW)
    record = json.loads(json.dumps(plan_record(plan)))
    assert record["version"] == 1
    assert record["trainable"] == plan.trainable
    assert [s["place"] for s in record["sites"]] == ["layers.0.q", "layers.1.q"]
    assert record["sites"][0]["programs"]["y"]


@pytest.mark.parametrize("line", range(1, 40, 2))
def test_a_damaged_plan_is_a_diagnostic(line: int) -> None:
    lines = plan_text(make_plan(Source("<spec>", TERMS[0]), VIEW)).split("\n")
    lines[line] = lines[line][: len(lines[line]) // 2] + "\x07 %"
    with pytest.raises(PeftcError):
        parse_plan("\n".join(lines))


def test_something_else_is_no_plan() -> None:
    for text in ("", "lora(q)", "peftc-plan 2\n"):
        with pytest.raises(PeftcError, match="PEFT306"):
            parse_plan(text)
