"""What each plan pass makes of a plan: the lines of the text it takes and gives."""

from __future__ import annotations

import difflib
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from peftc.driver import make_plan
from peftc.plan.print import plan_text
from peftc.syntax.read import read_source
from tests.golden.case import HERE, cases, view_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.plan.types import Plan

PLANS = HERE / "plans"


def stages(path: Path) -> str:
    """The plan as built, then what every pass changed in its text."""
    source = read_source(Path(path.name))
    view = view_of(source.text)
    assert view is not None
    made: list[tuple[str, Plan]] = []
    make_plan(source, view, watch=lambda name, plan: made.append((name, plan)))
    texts = [f"=== {made[0][0]}\n{plan_text(made[0][1])}"]
    for (_, before), (name, after) in pairwise(made):
        texts.append(f"=== {name}\n{changes(before, after)}")
    return "\n".join(texts)


def changes(before: Plan, after: Plan) -> str:
    old, new = (plan_text(plan).splitlines() for plan in (before, after))
    lines = [line for line in difflib.ndiff(old, new) if line[0] in "+-"]
    return "\n".join(lines) + "\n" if lines else "unchanged\n"


@pytest.mark.parametrize("path", cases(PLANS), ids=lambda path: path.stem)
def test_plan(
    path: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PLANS)
    golden(path.with_suffix(".out"), stages(path))
