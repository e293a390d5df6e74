"""Fused regions, their kernels and the bytes these move, counted by hand."""

from __future__ import annotations

import peftc
from peftc.codegen.regions import Region, regions
from peftc.expr.order import MACHINE
from tests.models import model

TOKENS = MACHINE.batch * MACHINE.tokens
WIDE, R = 64, 4


def found(spec: str, *readers: tuple[str, ...], family: str = "llama") -> list[Region]:
    plan = peftc.plan(spec, model(family))
    by_place = {rewrite.site.place: rewrite.site.key for rewrite in plan.rewrites}
    keys = [tuple(by_place[place] for place in places) for places in readers]
    return regions(plan, keys, MACHINE)


def test_equal_groups_are_one_region() -> None:
    pairs = [(f"layers.{i}.q", f"layers.{i}.o") for i in range(2)]
    (one,) = found(f"lora(q, o, r={R})", *pairs)
    assert one.name == "q_o"
    assert one.account.sites == tuple(place for pair in pairs for place in pair)
    assert set(one.texts()) == {"forward", "backward"}
    for text in one.texts().values():
        assert text.startswith("# sites layers.0.q, layers.0.o, layers.1.q")
        assert "@triton.jit" in text


def test_what_kernels_move() -> None:
    """A kernel reads each value once, whatever steps read it: the forward of a low-rank
    update x, y and its parameters; the backward dy twice, x once, for sums over tokens.
    """
    (one,) = found(f"lora(q, r={R})", ("layers.0.q",))
    element = MACHINE.element
    x = y = TOKENS * WIDE
    s, a, w = TOKENS * R, R * WIDE, WIDE * WIDE
    base = x + w + y
    assert one.account.forward[0] == element * (base + x + a + s + y + a + y)
    assert one.account.backward is not None
    through = (y + w + x) + (y + a + s + x + a + x)
    sums = (x + s + a) + (y + s + a) + 2 * (a + a)  # each scaled once more
    assert one.account.backward[0] == element * (through + sums)
    assert one.account.kept == element * (x + s)


def test_groups_of_one_activation_count_it_once() -> None:
    (lone,) = found(f"lora(q, o, r={R})", ("layers.0.q",), ("layers.0.o",))
    (one,) = found(f"lora(q, o, r={R})", ("layers.0.q", "layers.0.o"))
    x = MACHINE.element * TOKENS * WIDE
    assert one.account.forward[0] == 2 * lone.account.forward[0] - x
    assert lone.account.kept
    assert one.account.kept == 2 * lone.account.kept - x
