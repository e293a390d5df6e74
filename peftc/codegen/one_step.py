"""Which sites can be one step of autograd, and why others cannot.

In: a plan, and the machine to order for.  Out: for each kind of site the joint program
that its step is generated from, or `Apart`: why its operations stay apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.codegen.torch_source import torch_source
from peftc.codegen.torch_writer import NoSourceError
from peftc.expr.derivative import NoDerivativeError
from peftc.expr.joint import order_jointly
from peftc.plan.equations import composed, definitions, environment, same_shape
from peftc.storage.table import form_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from peftc.expr.cost import Machine
    from peftc.expr.joint_program import JointProgram
    from peftc.plan.types import Application, Plan, Rewrite, StoredWeight
    from peftc.syntax.ast import Method


NOTHING = "it computes nothing of its own"


@dataclass(frozen=True)
class Apart:
    """A site whose operations stay apart."""

    why: str


def forms(
    plan: Plan, machine: Machine, training: bool = True
) -> Iterator[tuple[list[Rewrite], JointProgram | Apart]]:
    """Sites of equal shape and methods, with what they run as."""
    methods = definitions(plan)
    codes = {one.weight for one in plan.stores if not _is_decoded_as_it_is(one)}
    able: dict[str, list[Rewrite]] = {}
    for rewrite in plan.rewrites:
        able.setdefault(_hindrance(rewrite, codes), []).append(rewrite)
    for why, rewrites in able.items():
        for same in same_shape(rewrites).values():
            form = Apart(why) if why else _one_step(same[0], methods, machine, training)
            yield same, form


def _one_step(
    rewrite: Rewrite, methods: Mapping[str, Method], machine: Machine, training: bool
) -> JointProgram | Apart:
    """The joint program of a site without hindrance, if a step can be generated."""
    unknown = _unknown(rewrite.applications, methods)
    if unknown:
        return Apart(unknown)
    whole, env = composed(rewrite, methods), environment(rewrite)
    try:
        program = order_jointly(whole, env, bool(rewrite.site.bias), machine, training)
        torch_source(program, [name for name, _ in program.backward.results])
    except (NoDerivativeError, NoSourceError) as error:
        return Apart(str(error))
    return program


def _hindrance(rewrite: Rewrite, codes: Collection[str]) -> str:
    """Why a site cannot be one step whatever its equations say; "" if it can.

    `codes` are weights that decode to something else than their linear multiplies by.
    """
    site = rewrite.site
    if site.kind == "hidden":
        return _hindrance_of_value(rewrite)
    if site.kind != "linear":
        return f"the site is no linear and no value between layers, but {site.kind}"
    if site.experts:
        return "its rows are given to experts while it runs"
    if site.rows is not None:
        return "it is some rows of a fused weight"
    if site.weight in codes:
        return "its weight is kept in codes that are of another layout or type"
    return "" if rewrite.programs else NOTHING


def _hindrance_of_value(rewrite: Rewrite) -> str:
    """Why what replaces a value between layers cannot be one step."""
    if len(rewrite.programs) != 1:
        return "it is computed in turns with a norm" if rewrite.programs else NOTHING
    (program,) = rewrite.programs
    own = {tensor.name for tensor in rewrite.tensors}
    others = {one.name for one in program.inputs} - own - {"h", "u"}
    return f"it reads `{min(others)}`, which the graph computes" if others else ""


def _is_decoded_as_it_is(stored: StoredWeight) -> bool:
    """Whether what is decoded is [out, in], of the base's type."""
    return not stored.transposed and form_of(stored.form).compute == "base"


def _unknown(
    applications: tuple[Application, ...], methods: Mapping[str, Method]
) -> str:
    """Whether the plan lacks the equations of a method: its programs can be run."""
    for one in applications:
        if one.method not in methods:
            return f"the plan does not hold the equations of `{one.method}`"
        inner = _unknown(one.wraps, methods)
        if inner:
            return inner
    return ""
