"""What of a plan an export keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.driver import make_plan
from peftc.expr.ir import Leaf, walk
from peftc.plan.fold import fold
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_text
from peftc.syntax.source import Source
from tests.views import toy

if TYPE_CHECKING:
    from peftc.plan.types import Plan


def plan_of(text: str) -> Plan:
    return make_plan(Source("<spec>", text), toy())


def kept(text: str) -> list[str]:
    """The tensors of the first site after folding."""
    return [
        t.name.partition(".")[2] for t in fold(plan_of(text)).plan.rewrites[0].tensors
    ]


def test_rows_stay_of_a_hidden_layer() -> None:
    folding = fold(plan_of("prefix(p=10, mlp=32)"))
    assert folding.plan.trainable == 2 * 10 * (32 + 32)
    shapes = {t.name: t.shape for r in folding.plan.rewrites for t in r.tensors}
    assert shapes == {"prefix.k_folded": (10, 32), "prefix.v_folded": (10, 32)}
    assert [r.start for r in folding.plan.rewrites] == [10, 10]
    read = {n.name for p in folding.parts for n in walk(p.node) if isinstance(n, Leaf)}
    assert read == {f"prefix.{name}" for name in ("E", "A", "a", "K", "k0", "V", "v0")}


def test_a_folded_plan_is_a_plan() -> None:
    folding = fold(plan_of("prefix(p=10, mlp=32) + gate(prefix(p=4, mlp=8))"))
    text = plan_text(folding.plan)
    assert parse_plan(text) == folding.plan
    assert text.count("param k_folded[p, key], v_folded[p, value]") == 1
    assert "drop(k_folded, dropout)" in text


@pytest.mark.parametrize(
    "spec",
    [
        "prefix(p=10)",
        "prefix(p=200, mlp=4)",  # the rows take more than what they are made of
        "lora(q) + krona(k) + dora(v) + adapter(ffn, d=4) + phm(attn, d=8)",
        "vera(q, v, r=256)",  # fixed tensors are no part of what is computed
        "houlsby(d=8)",
    ],
)
def test_what_does_not_get_smaller_stays(spec: str) -> None:
    plan = plan_of(spec)
    folding = fold(plan)
    assert folding.plan is plan
    assert folding.parts == ()


SPLIT = """
method split(m: size = 40) on linear {
  param P[out, m] ~ normal(1), q[m] ~ normal(1), r[in] = 0, s[] = 1
  a = tanh(P) @ q
  y' = y + s * outer(r(x), abs(a)) + a * a * drop(y, 10%)
}
split(q)
"""


def test_parts_are_as_large_as_they_can_be() -> None:
    assert kept(SPLIT) == ["y_folded", "y_folded2", "r", "s"]


def test_applications_are_folded_one_by_one() -> None:
    long = "prefix(p=200, mlp=2, embed=2)"
    spec = f"prefix(p=10, mlp=32) @ layers(0) + {long} @ layers(1)"
    first, second = fold(plan_of(spec)).plan.rewrites
    assert [t.name for t in first.tensors] == ["prefix.k_folded", "prefix.v_folded"]
    assert len(second.tensors) == 7
