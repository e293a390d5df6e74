"""The joint programs of a plan as text: forward and backward of each kind of site.

In: a plan, and the machine to plan for.  Out: for sites of equal shape and methods one
text, under the number of them and the first; or why there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.codegen.joint_text import joint_text
from peftc.expr.derivative import NoDerivativeError
from peftc.expr.joint import order_jointly
from peftc.plan.equations import composed, definitions, environment, same_shape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.expr.cost import Machine
    from peftc.plan.types import Plan, Rewrite
    from peftc.syntax.ast import Method


def joint_plans(plan: Plan, machine: Machine) -> str:
    """One block for each group of equal sites."""
    return "\n".join(_blocks(plan, machine))


def _blocks(plan: Plan, machine: Machine) -> Iterator[str]:
    methods = definitions(plan)
    for group in same_shape(plan.rewrites).values():
        text = _text(group[0], methods, machine)
        if text:
            count = f"{len(group)} sites" if len(group) > 1 else "1 site"
            yield f"# {count}: {group[0].site.key}\n{text}"


def _text(rewrite: Rewrite, methods: Mapping[str, Method], machine: Machine) -> str:
    whole, env = composed(rewrite, methods), environment(rewrite)
    if not whole.outputs:
        return ""
    try:
        return joint_text(order_jointly(whole, env, bool(rewrite.site.bias), machine))
    except NoDerivativeError as error:
        return f"# no joint program: {error}\n"
