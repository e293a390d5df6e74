"""Refuse a plan that adds absurdly much, before anything is allocated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.plan import TooLarge
from peftc.pipeline import Fact, plan_pass

if TYPE_CHECKING:
    from peftc.plan.types import Plan

SLACK = 2**24  # scalars that any model may be given
FACTOR = 4  # added scalars for each of the base's


@plan_pass("check-sizes", requires={Fact.BUILT}, ensures={Fact.CHECKED})
def check_sizes(plan: Plan) -> Plan:
    """Count what would be added, in Python integers.

    rewrite:
        plan -> plan

    guards: all added tensors together hold at most FACTOR times the base's parameters
    plus SLACK scalars, else PEFT302.
    """
    added = sum(t.count for r in plan.rewrites for t in r.tensors)
    if added > FACTOR * plan.model.parameters + SLACK:
        raise fail(_too_large(plan, added))
    return plan


def _too_large(plan: Plan, added: int) -> TooLarge:
    applications = (a for r in plan.rewrites for a in r.applications)
    asked = ((t, a) for a in applications for t in a.all_tensors)
    tensor, application = max(asked, key=lambda pair: pair[0].count)
    shape = " x ".join(map(str, tensor.shape))
    return TooLarge(
        added=added,
        base=plan.model.parameters,
        largest=f"{tensor.name} [{shape}]",
        origin=application.origin,
    )
