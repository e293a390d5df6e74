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
    tensors = [t for r in plan.rewrites for t in r.tensors]
    added = sum(t.count for t in tensors)
    if added > FACTOR * plan.model.parameters + SLACK:
        largest = max(tensors, key=lambda t: t.count)
        shape = " x ".join(map(str, largest.shape))
        raise fail(
            TooLarge(
                added=added,
                base=plan.model.parameters,
                largest=f"{largest.name} [{shape}]",
            )
        )
    return plan
