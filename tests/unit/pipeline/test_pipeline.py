"""Passes are records; a wrong order is refused before anything runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from peftc.passes import GRAPH_PIPELINE, PIPELINE, PLAN_PIPELINE
from peftc.pipeline import (
    PASSES,
    Fact,
    Manager,
    Pass,
    check_order,
    load,
    plan_pass,
)
from peftc.plan.types import ModelFacts, Plan

EMPTY = Plan(ModelFacts("Toy", "", 10, 1), 0, "auto", (), ())


def test_the_pipelines_are_in_order() -> None:
    check_order(load(PLAN_PIPELINE), {Fact.BUILT})
    check_order(load(GRAPH_PIPELINE), {Fact.BOUND})


def test_every_pass_is_in_the_pipeline_and_has_a_file() -> None:
    from pathlib import Path

    import peftc.passes

    folder = Path(peftc.passes.__file__ or "").parent
    files = {p.stem.replace("_", "-") for p in folder.glob("*.py")} - {"--init--"}
    assert files == set(PIPELINE)


def test_a_wrong_order_names_who_is_missing() -> None:
    passes = load(PLAN_PIPELINE)
    with pytest.raises(ValueError, match=r"order-evaluation.*CHECKED.*check-sizes"):
        check_order((passes[2], passes[0]), {Fact.BUILT})
    with pytest.raises(ValueError, match=r"no pass in the pipeline"):
        check_order((passes[2],), {Fact.BUILT})


def test_passes_that_wait_for_each_other_are_refused() -> None:
    def one(name: str, needs: Fact, makes: Fact) -> Pass:
        return Pass(name, "plan", lambda p: p, frozenset({needs}), frozenset({makes}))

    ring = (
        one("a", Fact.CHECKED, Fact.ORDERED),
        one("b", Fact.ORDERED, Fact.CHECKED),
    )
    with pytest.raises(ValueError, match="wait for each other"):
        check_order(ring, {Fact.CHECKED})


def test_registering_needs_a_rewrite_block_and_a_new_name() -> None:
    decorate = plan_pass("tested-only", requires=(), ensures=())
    with pytest.raises(TypeError, match="rewrite:"):
        decorate(lambda plan: plan)
    with pytest.raises(TypeError, match="twice"):
        plan_pass("check-sizes", requires=(), ensures=())(PASSES["check-sizes"].run)
    assert "tested-only" not in PASSES


def test_the_manager_shows_and_times_every_pass() -> None:
    seen = []
    manager = Manager(load(PIPELINE), watch=lambda name, made: seen.append(name))
    assert manager.refine(EMPTY).memory is not None
    assert tuple(seen) == PLAN_PIPELINE
    assert set(manager.seconds) == set(PLAN_PIPELINE)


@pytest.mark.parametrize("name", PLAN_PIPELINE)
def test_a_plan_without_rewrites_stays_without(name: str) -> None:
    (one,) = load((name,))
    assert one.run(EMPTY).rewrites == ()


def test_checking_sizes_changes_nothing() -> None:
    (one,) = load(("check-sizes",))
    plan = replace(EMPTY, notes=("kept",))
    assert one.run(plan) is plan
