"""Which equations start as the base follows from them and their initial values."""

from __future__ import annotations

import pytest

from peftc.driver import make_plan
from peftc.expr.start import starts_as_base
from peftc.plan.equations import composed, definitions, environment
from peftc.syntax.source import Source
from tests.views import toy, with_biases

HALF = "method half() on linear { param s[out] = 0.5; y' = s * y }\nhalf(q)"
TWICE = """
method twice() on linear {
  param one[out] = 0.5, two[out] = 0.5
  y' = one * y + two * y
}
twice(q)
"""


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize(
    ("spec", "claimed"),
    [
        ("lora(q)", True),
        ("krona(up)", True),
        ("vera(q)", True),
        ("ssf(q)", True),
        ("adapter(ffn)", True),
        ("norm_tuning(norm)", True),
        ("bitfit(q, create=true)", True),
        ("gate(lora(q))", True),
        ("lora(q) + ia3(q)", True),
        ("dora(q)", False),
        ("prefix(k, v)", False),
        (HALF, False),
        ("lora(q)".join((HALF.removesuffix("half(q)"), " + half(q)")), False),
        (TWICE, True),
    ],
)
def test_claims(spec: str, claimed: bool, biased: bool) -> None:
    view = with_biases(toy()) if biased else toy()
    plan = make_plan(Source("<spec>", spec), view)
    rewrite = plan.rewrites[0]
    found = starts_as_base(
        composed(rewrite, definitions(plan)),
        environment(rewrite),
        bool(rewrite.site.bias),
    )
    assert found is claimed
