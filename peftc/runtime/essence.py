"""When are two plans the same rewrite?

In: a Plan.  Out: the Plan without what says where it came from, what was derived from
it, and what its base is like: the seed, lines of a user's file, programs, merge
classes, memory, notes.  Tensors of one plan fit another of equal essence.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.plan.types import Merge
from peftc.storage.table import form_of

if TYPE_CHECKING:
    from peftc.plan.types import Application, ModelFacts, Plan, Rewrite


def essence(plan: Plan) -> Plan:
    """What the plan does, and nothing else."""
    return replace(
        plan,
        model=_model(plan.model),
        seed=0,
        dtype="auto",
        rewrites=tuple(_rewrite(r) for r in plan.rewrites),
        memory=None,
        notes=(),
        stores=tuple(
            replace(s, origin="", dtype="")
            for s in plan.stores
            if form_of(s.form).error  # what is exact changes nothing
        ),
    )


def _model(model: ModelFacts) -> ModelFacts:
    return replace(model, config_hash="", parameters=0, layers=0, bytes=0)


def _rewrite(rewrite: Rewrite) -> Rewrite:
    return replace(
        rewrite,
        site=replace(rewrite.site, dtype=""),
        applications=tuple(essence_of(a) for a in rewrite.applications),
        merge=Merge(),
        programs=(),
    )


def essence_of(application: Application) -> Application:
    """What an application does, wherever it was written."""
    wraps = tuple(essence_of(part) for part in application.wraps)
    return replace(application, origin="", wraps=wraps)


def difference(one: Plan, other: Plan) -> str:
    """The first thing in which two plans differ, for people; empty if nothing."""
    mine, its = essence(one), essence(other)
    if mine.methods != its.methods:
        return "the definitions of its methods differ"
    sites = {r.site.key: r for r in mine.rewrites}
    for rewrite in its.rewrites:
        if rewrite.site.key not in sites:
            return f"`{rewrite.site.key}` is not rewritten here"
        if rewrite != sites.pop(rewrite.site.key):
            return f"`{rewrite.site.key}` is rewritten differently"
    if sites:
        return f"`{next(iter(sites))}` is not rewritten in it"
    if mine.stores != its.stores:
        changed = {*mine.stores} ^ {*its.stores}
        return f"`{min(s.weight for s in changed)}` is stored differently"
    return "" if mine == its else "the model or the order of its sites differs"
