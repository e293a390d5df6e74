"""S4: groups of layers with methods of their own, sized by a budget."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from peftc.driver import make_plan
from peftc.resolve.groups import spindle
from peftc.syntax.source import Source
from tests.numerics.runtime.tiny import refused
from tests.views import toy

if TYPE_CHECKING:
    from peftc.plan.types import Plan

LAYERS, TOTAL = 12, 48_000
EACH = TOTAL // LAYERS
OUTPUTS = 64 + 32 + 32 + 64 + 128 + 128 + 64
UNITS = {"pfeiffer": 2 * 64 + 1, "lora": 128 + 96, "prefix": 64}


def planned(spec: str, layers: int = LAYERS) -> Plan:
    return make_plan(Source("<spec>", spec), toy(layers))


def by_layer(plan: Plan) -> Counter[int]:
    counts: Counter[int] = Counter()
    for rewrite in plan.rewrites:
        assert rewrite.site.layer is not None
        counts[rewrite.site.layer] += sum(
            t.count for t in rewrite.tensors if t.kind == "param"
        )
    return counts


@pytest.mark.parametrize(
    ("layers", "sizes"),
    [
        (4, (1, 1, 1, 1)),
        (6, (1, 2, 2, 1)),
        (12, (2, 4, 4, 2)),
        (16, (3, 5, 5, 3)),
        (24, (4, 8, 8, 4)),
        (32, (5, 11, 11, 5)),
        (36, (6, 12, 12, 6)),
    ],
)
def test_sizes_of_a_spindle(layers: int, sizes: tuple[int, ...]) -> None:
    assert spindle(layers) == sizes
    plan = planned("lora(q, r=1) @ spindle(2..3)", layers)
    first, last = sizes[0], layers - sizes[3] - 1
    assert [r.site.layer for r in plan.rewrites] == list(range(first, last + 1))


def test_it_is_the_spec_written_out() -> None:
    half, rest = EACH // 2, (EACH - OUTPUTS) // 2
    adapter = (half - 64) // 129, (rest - 64) // 129
    rank, prefix = (half // 224, rest // 224), (half // 64, rest // 64)
    by_hand = f"""
    (pfeiffer(ffn, d={adapter[0]}) + lora(q, v, r={rank[0]})) @ layers(0..1)
    + (pfeiffer(ffn, d={adapter[0]}) + prefix(p={prefix[0]}, positions=keep))
      @ layers(2..5)
    + (
      pfeiffer(ffn, d={adapter[1]})
      + prefix(p={prefix[1]}, positions=keep)
      + bitfit(linear, create=true)
    ) @ layers(6..9)
    + (
      prefix(p={prefix[1]}, positions=keep)
      + bitfit(linear, create=true)
      + lora(q, v, r={rank[1]})
    ) @ layers(10..11)
    """
    plan, wanted = planned(f"s4(total={TOTAL})"), planned(by_hand)
    assert plan.trainable == wanted.trainable
    for one, other in zip(plan.rewrites, wanted.rewrites, strict=True):
        assert one.site == other.site
        assert one.tensors == other.tensors
        assert [a.knobs for a in one.applications] == [
            a.knobs for a in other.applications
        ]


def test_every_layer_has_its_share() -> None:
    plan = planned(f"s4(total={TOTAL})")
    used: dict[int, set[str]] = {}
    for rewrite in plan.rewrites:
        assert rewrite.site.layer is not None
        names = used.setdefault(rewrite.site.layer, set())
        names |= {a.method for a in rewrite.applications}
    for layer, count in by_layer(plan).items():
        unused = EACH - count
        assert 0 <= unused < sum(UNITS.get(name, 0) for name in used[layer])
    assert plan.trainable <= TOTAL


def test_a_budget_is_a_share_of_the_model() -> None:
    plan = planned("s4(budget=10%)")
    assert 0.8 < plan.trainable / (0.1 * plan.model.parameters) <= 1


def test_few_layers_are_refused() -> None:
    with refused("PEFT314"):
        planned("lora(q) @ spindle(1..4)", layers=3)


def test_formulas_in_a_spec() -> None:
    plan = planned("let part = 16\nadapter(ffn, d=hidden / part) @ layers(0)", 2)
    assert dict(plan.rewrites[0].applications[0].knobs)["d"] == 4
    plan = planned("lora(q, v, r=floor(sqrt(per_layer(out + in)))) @ layers(0)", 2)
    assert {dict(r.applications[0].knobs)["r"] for r in plan.rewrites} == {14}
    with refused("PEFT230"):
        planned("lora(q, r=hidden / 8)", 2)
