"""Every ordered pair of the methods of the field: trained with the right gradients, or
refused for a reason.

Where both orders have one plan, that plan is run once.
"""

from __future__ import annotations

from itertools import combinations, product
from typing import TYPE_CHECKING

import pytest

from tests.numerics.pairs import METHODS, NEAR, meaning, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
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


ORDERED = {
    "adapter": ("adamix", "krona", "sparse", "mam", "unipelt", "compacter", "s4"),
    "adamix": ("krona", "mam", "unipelt", "compacter", "s4"),
    "prompt": ("ptuning", "ipt"),
    "prefix": ("unipelt", "s4"),
    "ptuning": ("ipt",),
    "distill": ("ulmfit",),
    "lora": ("unipelt", "s4"),
    "krona": ("unipelt", "compacter", "s4"),
    "qlora": ("unipelt", "s4"),
    "sparse": ("compacter",),
    "mam": ("unipelt", "compacter", "s4"),
    "unipelt": ("compacter", "s4"),
    "compacter": ("s4",),
}
"""Pairs whose plan is another in the other order: one adapts what the other one made,
rows stand before others, or names are numbered as they come."""


def is_ordered(first: str, second: str) -> bool:
    """Whether the order of a pair says something."""
    return second in ORDERED.get(first, ()) or first in ORDERED.get(second, ())


def is_refused(first: str, second: str) -> bool:
    return frozenset((first, second)) in REFUSED


def run() -> Iterator[tuple[str, str]]:
    """All ordered pairs; of two that have one plan the first."""
    names = list(METHODS)
    for first, second in product(METHODS, METHODS):
        is_first = names.index(first) <= names.index(second)
        if is_first or is_ordered(first, second) or is_refused(first, second):
            yield first, second


def others() -> Iterator[tuple[str, str]]:
    """Pairs of two methods that have a plan."""
    return (two for two in combinations(METHODS, 2) if not is_refused(*two))


@pytest.mark.parametrize(("first", "second"), [*others()])
def test_the_order_of_a_pair(first: str, second: str) -> None:
    same = meaning(first, second) == meaning(second, first)
    assert same is not is_ordered(first, second)


@pytest.mark.parametrize(("first", "second"), [*run()])
def test_a_pair(first: str, second: str, tmp_path: Path) -> None:
    found = outcome(first, second, tmp_path)
    assert found.refused == REFUSED.get(frozenset((first, second)), "")
    if found.refused:
        return
    assert not found.base_changed
    assert not found.still
    assert found.quotient == pytest.approx(found.slope, rel=NEAR, abs=5e-5)
    assert found.reloaded
