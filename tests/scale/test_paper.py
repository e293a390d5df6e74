"""The calculation of docs/scale.md follows from plans, and is what really happens."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import peftc
from tests.numerics.runtime.tiny import llama
from tests.scale.ranks import in_ranks
from tests.scale.work import SPEC, costs

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def paper() -> Iterator[Any]:
    """The script; it imports another from its folder."""
    folder = str(ROOT / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("scale_on_paper")
    sys.path.remove(folder)


def rows(text: str, *begin: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(begin)]


def test_the_table_follows_from_the_figures_of_plans(paper: Any) -> None:
    text = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    found = {}
    for line in rows(text, "| 8B | 1", "| 70B | 1"):
        name, *numbers = (cell.strip() for cell in line.strip("|").split("|"))
        found[name] = paper.Figures(*map(int, numbers))
    assert list(found) == list(paper.MODELS)
    table = "\n".join(paper.shares(found))
    assert table in text
    assert "\n".join(paper.planned(found)) in text


def test_the_figures_are_those_of_the_plan(
    paper: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "TOKENS", 8)
    model = llama()
    found = paper.figures(model.config)
    assert found.base == 2 * sum(p.numel() for p in model.parameters())
    layers = model.model.layers.parameters()
    assert found.layer * found.layers == 2 * sum(p.numel() for p in layers)


@pytest.mark.slow
def test_two_processes_hold_and_send_what_is_said(paper: Any, tmp_path: Path) -> None:
    model: Any = llama()
    memory: Any = peftc.plan(SPEC, model, batch=1, tokens=8).memory
    layer = sum(p.nbytes for p in model.model.layers[0].parameters())
    tensors = (memory.parameters, memory.gradients, 2 * memory.parameters)
    told = paper.sharded(paper.Figures(memory.base, layer, 2, *tensors, 0), 2)
    for lasting, sent in in_ranks(costs, tmp_path):
        assert lasting == told.lasting
        assert sent == told.sent
