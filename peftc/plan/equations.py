"""The equations behind a plan, made again from its methods whenever a pass needs them.

In: a rewrite and the method definitions that the plan carries.  Out: elaborated
equations and their composition at the site.  Nothing here is stored in the plan, so a
plan that was read from text is as good as one that was built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.expr.compose import Composed, compose
from peftc.expr.elaborate import elaborate
from peftc.expr.wrap import Wrapper, over_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.equation import Equation
    from peftc.expr.ir import Node
    from peftc.plan.types import Application, Plan, Rewrite
    from peftc.syntax.ast import Method
    from peftc.view import Site


def definitions(plan: Plan) -> Mapping[str, Method]:
    """The methods of a plan by name."""
    return {method.name: method for method in plan.methods}


def equations_of(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> tuple[Equation, ...]:
    """The equations of one application: of a wrapper over tensors, those it wraps."""
    method = methods[application.method]
    if not over_tensors(method):
        return (equation_of(application, site, methods),)
    wrapper = wrapper_of(application, site, method)
    inner = _wrapped(application, site, methods)
    return tuple(wrapper.wrap(equation) for equation in inner)


def wrapper_of(application: Application, site: Site, method: Method) -> Wrapper:
    """The application of a wrapper over tensors."""
    knobs, sizes = dict(application.knobs), dict(site.sizes)
    return Wrapper(method, knobs, application.instance, site.kind, sizes)


def _wrapped(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> list[Equation]:
    """The equations of what an application wraps."""
    every = (equations_of(part, site, methods) for part in application.wraps)
    return [equation for equations in every for equation in equations]


def equation_of(
    application: Application, site: Site, methods: Mapping[str, Method]
) -> Equation:
    """The equation of one application, its tensors named as in the plan."""
    method = methods[application.method]
    inner = _wrapped(application, site, methods)
    wrapped = {p.name: inner for p in method.params if p.type == "method"}
    return elaborate(
        method.clauses[application.clause],
        dict(application.knobs),
        dict(site.sizes),
        f"{application.instance}.",
        wrapped,
    )


def composed(rewrite: Rewrite, methods: Mapping[str, Method]) -> Composed:
    """All that happens at a site, as one expression for each value it replaces."""
    site = rewrite.site
    every = (equations_of(a, site, methods) for a in rewrite.applications)
    equations = [equation for equations in every for equation in equations]
    return compose(site.kind, equations, bool(site.bias), site.post_norm)


def knob_sizes(application: Application) -> dict[str, int]:
    """The numbers of an application's size names, which carry its prefix."""
    sizes = {
        f"{application.instance}.{name}": value
        for name, value in application.knobs
        if isinstance(value, int) and not isinstance(value, bool)
    }
    for part in application.wraps:
        sizes |= knob_sizes(part)
    return sizes


def environment(rewrite: Rewrite) -> dict[str, int]:
    """The number of every size name in the equations of a site."""
    sizes = dict(rewrite.site.sizes)
    for application in rewrite.applications:
        sizes |= knob_sizes(application)
    return sizes


def initial_nodes(
    rewrite: Rewrite, methods: Mapping[str, Method]
) -> Mapping[str, Node]:
    """The initial values that are expressions over the base, by tensor name."""
    declarations = composed(rewrite, methods).declarations
    return {d.name: d.init.node for d in declarations if d.init.node is not None}


def same_shape(rewrites: Sequence[Rewrite]) -> dict[object, list[Rewrite]]:
    """Rewrites grouped by all that their equations depend on.

    A model of 80 equal layers has a handful of groups; passes work once for each.
    Rewrites without equations (moved tables of positions) are in none.
    """
    groups: dict[object, list[Rewrite]] = {}
    for rewrite in rewrites:
        if rewrite.applications:
            groups.setdefault(_signature(rewrite), []).append(rewrite)
    return groups


def _signature(rewrite: Rewrite) -> object:
    site = rewrite.site
    facts = (site.kind, site.sizes, bool(site.bias), bool(site.weight), site.post_norm)
    return facts, tuple(_shape_of(a) for a in rewrite.applications)


def _shape_of(application: Application) -> object:
    inner = tuple(_shape_of(part) for part in application.wraps)
    return (
        application.instance,
        application.method,
        application.clause,
        application.knobs,
        inner,
    )
