"""Say for every rewrite whether it can go into the weights, and why not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.expr.merge import Merged
from peftc.expr.merge import derive_merge as derive
from peftc.pipeline import Fact, plan_pass
from peftc.plan.equations import composed, definitions, environment, same_shape
from peftc.plan.types import Merge, Plan, Rewrite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.syntax.ast import Method


@plan_pass("derive-merge", requires={Fact.CHECKED}, ensures={Fact.MERGES_KNOWN})
def derive_merge(plan: Plan) -> Plan:
    """Read the merge class off the equation, once for equal sites.

    rewrite:
        site s { apply ... }  ->  site s { apply ...; merge exact }
        site s { apply ... }  ->  site s { apply ...; merge none "reason" }

    guards: none; a refusal is a result.
    """
    methods = definitions(plan)
    merges: dict[str, Merge] = {}
    for group in same_shape(plan.rewrites).values():
        merge = _merge(group[0], methods)
        merges |= {rewrite.site.key: merge for rewrite in group}
    rewrites = (
        replace(r, merge=merges.get(r.site.key, r.merge)) for r in plan.rewrites
    )
    return replace(plan, rewrites=tuple(rewrites))


def _merge(rewrite: Rewrite, methods: Mapping[str, Method]) -> Merge:
    result = derive(composed(rewrite, methods), environment(rewrite), rewrite.site)
    if isinstance(result, Merged):
        return Merge("exact+bias" if result.creates_bias else "exact")
    place = f" ({result.span})" if result.span else ""
    return Merge("none", f"{result.reason}{place}")
