"""A plan in which some knobs have other values at some sites.

In: a plan and new values of knobs by site.  Out: the plan with the shapes that follow;
its merge classes and programs are to be made again.  How many scores a site keeps, or
which rank is left of it, may be known only when data has been seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from peftc.plan.equations import definitions, equation_of, knob_sizes
from peftc.plan.types import Application, Knob, Merge, Plan, Rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.plan.types import AddedTensor
    from peftc.syntax.ast import Method
    from peftc.view import Site

Changes: TypeAlias = "Mapping[tuple[str, str], Mapping[str, Knob]]"
"""By site key and instance (`lora#2`): new values of knobs.  A knob that becomes 0
takes the application away; a site without applications is left out of the plan."""


def resized(plan: Plan, changes: Changes) -> Plan:
    """The plan with other knobs; it has to be refined again."""
    methods = definitions(plan)
    rewrites = (_rewrite(rewrite, changes, methods) for rewrite in plan.rewrites)
    left = tuple(r for r in rewrites if r.applications or not r.programs)
    return replace(plan, rewrites=left, memory=None)


def _rewrite(
    rewrite: Rewrite, changes: Changes, methods: Mapping[str, Method]
) -> Rewrite:
    site = rewrite.site
    if not any(key == site.key for key, _ in changes):
        return rewrite
    applications = tuple(
        _application(one, site, changes, methods)
        for one in rewrite.applications
        if 0 not in changes.get((site.key, one.instance), {}).values()
    )
    programs = () if applications else rewrite.programs
    return replace(rewrite, applications=applications, merge=Merge(), programs=programs)


def _application(
    one: Application, site: Site, changes: Changes, methods: Mapping[str, Method]
) -> Application:
    new = changes.get((site.key, one.instance), {})
    knobs = tuple((name, new.get(name, value)) for name, value in one.knobs)
    wraps = tuple(_application(part, site, changes, methods) for part in one.wraps)
    changed = replace(one, knobs=knobs, wraps=wraps)
    return replace(changed, tensors=tuple(_tensors(changed, site, methods)))


def _tensors(
    one: Application, site: Site, methods: Mapping[str, Method]
) -> Iterator[AddedTensor]:
    """The tensors of an application with the sizes that its knobs give."""
    equation = equation_of(replace(one, wraps=()), site, methods)
    axes = {declared.name: declared.axes for declared in equation.declarations}
    sizes = {**dict(site.sizes), **knob_sizes(one)}
    for tensor in one.tensors:
        shape = tuple(axis.value(sizes) for axis in axes[tensor.name])
        experts = (site.experts,) if site.experts and not tensor.shared else ()
        yield replace(tensor, shape=(*experts, *shape))
