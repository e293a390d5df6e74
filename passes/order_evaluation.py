"""Give every rewrite its programs: the ordered evaluation of what it replaces."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.expr.order import order
from peftc.pipeline import Fact, plan_pass
from peftc.plan.equations import composed, definitions, environment, same_shape

if TYPE_CHECKING:
    from peftc.expr.program import Program
    from peftc.plan.types import Plan, Rewrite


@plan_pass("order-evaluation", requires={Fact.CHECKED}, ensures={Fact.ORDERED})
def order_evaluation(plan: Plan) -> Plan:
    """Choose the cheapest order of each equation, once for equal sites.

    rewrite:
        site s { apply ... }  ->  site s { apply ...; program { %0 = linear(x, A) } }

    guards: none.
    """
    methods = definitions(plan)
    programs: dict[str, tuple[Program, ...]] = {}
    for group in same_shape(plan.rewrites).values():
        whole = composed(group[0], methods)
        env = environment(group[0])
        biased = bool(group[0].site.bias)
        made = tuple(order(whole, target, env, biased) for target in whole.outputs)
        programs |= {rewrite.site.key: made for rewrite in group}
    return replace(plan, rewrites=tuple(_with(r, programs) for r in plan.rewrites))


def _with(rewrite: Rewrite, programs: dict[str, tuple[Program, ...]]) -> Rewrite:
    return replace(rewrite, programs=programs.get(rewrite.site.key, ()))
