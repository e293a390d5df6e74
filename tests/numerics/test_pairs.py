"""Every ordered pair of the methods of the field: trained with the right gradients, or
refused for a reason."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import pytest

from tests.numerics.pairs import METHODS, NEAR, outcome

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

BESIDE = ("prune", "quantize", "distill", "ulmfit")
"""What goes with a side network: nothing of it needs a gradient in the backbone."""

REFUSED: dict[frozenset[str], str] = {
    **{
        frozenset(("ladder", name)): "PEFT352" for name in METHODS if name not in BESIDE
    },
    frozenset(("ladder",)): "PEFT353",  # two networks beside one backbone
    frozenset(("ulmfit",)): "PEFT696",  # two schedules of one run
    frozenset(("quantize",)): "PEFT346",  # one weight, stored twice
    frozenset(("qlora",)): "PEFT346",
    frozenset(("quantize", "qlora")): "PEFT346",
    frozenset(("qlora", "far")): "PEFT333",  # codes do not learn
    frozenset(("qlora", "fishmask")): "PEFT333",
    frozenset(("quantize", "fishmask")): "PEFT334",  # sizes that data decides
}
"""Pairs that do not go together, in either order, and the diagnostic that says why."""


@pytest.mark.parametrize(("first", "second"), product(METHODS, METHODS))
def test_a_pair(first: str, second: str, tmp_path: Path) -> None:
    found = outcome(first, second, tmp_path)
    assert found.refused == REFUSED.get(frozenset((first, second)), "")
    if found.refused:
        return
    assert not found.base_changed
    assert not found.still
    assert found.quotient == pytest.approx(found.slope, rel=NEAR, abs=5e-5)
    assert found.reloaded
