"""`peftc opt`: passes over plan text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from peftc.driver import make_plan
from peftc.passes import PLAN_PIPELINE
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_text
from peftc.plan.types import Merge
from peftc.syntax.source import Source
from tests.ecosystem.commands import ok, peftc, toy_plan
from tests.views import toy

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.plan.types import Plan

SPEC = "lora(q, v, r=2) + krona(up)"


def refined() -> Plan:
    return make_plan(Source("<spec>", SPEC), toy())


def built() -> Plan:
    """The plan as no pass has seen it."""
    plan = refined()
    bare = (replace(r, merge=Merge(), programs=()) for r in plan.rewrites)
    return replace(plan, rewrites=tuple(bare), memory=None)


def test_the_whole_pipeline_refines_a_bare_plan() -> None:
    made = ok("opt", "-", text=plan_text(built())).stdout
    assert made == plan_text(refined())


def test_a_refined_plan_stays_what_it_is(tmp_path: Path) -> None:
    path = toy_plan(SPEC, tmp_path)
    assert ok("opt", path).stdout == plan_text(refined())
    assert ok("opt", str(tmp_path)).stdout == plan_text(refined())


def test_named_passes_do_their_part_alone() -> None:
    passes = "check-sizes, derive-merge"
    made = parse_plan(
        ok("opt", "-", "--passes", passes, text=plan_text(built())).stdout
    )
    assert made == replace(
        built(),
        rewrites=tuple(replace(r, programs=()) for r in refined().rewrites),
    )


def test_a_pass_may_rely_on_what_the_text_shows() -> None:
    text = plan_text(replace(refined(), memory=None))
    made = ok("opt", "-", "--passes", "estimate-memory", text=text).stdout
    assert made == plan_text(refined())


def test_every_pass_is_shown_if_wanted() -> None:
    result = ok("opt", "-", "--print-ir-after-all", text=plan_text(built()))
    shown = [line for line in result.stderr.splitlines() if line.startswith("===")]
    assert shown == [f"=== after {name}" for name in PLAN_PIPELINE]


@pytest.mark.parametrize(
    ("passes", "code", "said"),
    [
        ("derive-merg", "PEFT665", "did you mean `derive-merge`?"),
        ("rewrite-linears", "PEFT665", "they are check-sizes"),
        ("estimate-memory", "PEFT666", "needs ORDERED"),
    ],
)
def test_passes_that_cannot_run(passes: str, code: str, said: str) -> None:
    result = peftc("opt", "-", "--passes", passes, text=plan_text(built()))
    assert result.exit_code == 1
    assert code in result.stderr
    assert said in result.stderr
    assert result.stdout == ""


def test_what_is_no_plan_is_a_diagnostic(tmp_path: Path) -> None:
    result = peftc("opt", str(tmp_path / "missing"))
    assert (result.exit_code, "PEFT667" in result.stderr) == (2, True)
    result = peftc("opt", "-", text="lora(q)")
    assert (result.exit_code, "PEFT306" in result.stderr) == (1, True)
