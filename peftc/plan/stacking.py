"""Plans one after the other: all that they do at each site, in one plan.

In: plans for one model, in their order.  Out: the plan in which each site has the
methods of all of them, under names that are kept apart, as if one spec had them all;
and where each tensor of it comes from.  Programs are still to be ordered.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.plan import PositionsDoNotFit
from peftc.diagnostics.slots import CannotStack
from peftc.plan.equations import composed, definitions
from peftc.plan.positions import starts_of
from peftc.plan.types import Merge, Plan, Rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.plan.types import AddedTensor, Application
    from peftc.syntax.ast import Method

APART = {
    "input": "rows among the tokens are put in before the forward that is compiled",
    "side": "a side network is part of the modules",
}
"""Kinds of sites whose methods cannot join others, and why."""


@dataclass(frozen=True)
class Stacked:
    """The plan; `sources` tells for each of its rewrites where each tensor is from: by
    its name, the number of a plan, and the tensor there."""

    plan: Plan
    sources: tuple[Mapping[str, tuple[int, AddedTensor]], ...]


def stacked(plans: Sequence[Plan]) -> Stacked:
    """The plans as one, unordered.

    Raises:
        PeftcError: PEFT656 with every reason.
    """
    methods = _methods(plans)
    by_site: dict[str, list[tuple[int, Rewrite]]] = {}
    for number, plan in enumerate(plans):
        for rewrite in plan.rewrites:
            by_site.setdefault(rewrite.site.key, []).append((number, rewrite))
    made = [_joined(found, methods) for found in by_site.values()]
    rewrites = [rewrite for rewrite, _ in made]
    starts = starts_of(rewrites)
    moved = tuple(_moved(rewrite, starts) for rewrite in rewrites)
    whole = replace(
        plans[0], rewrites=moved, methods=tuple(methods.values()), memory=None, notes=()
    )
    return Stacked(whole, tuple(sources for _, sources in made))


def _methods(plans: Sequence[Plan]) -> dict[str, Method]:
    """The methods of all plans, of which no two have one name."""
    known: dict[str, Method] = {}
    for plan in plans:
        for name, method in definitions(plan).items():
            if known.setdefault(name, method) != method:
                problem = f"they have two methods of the name `{name}`"
                raise fail(CannotStack(problem=problem))
    return known


def _joined(
    found: Sequence[tuple[int, Rewrite]], methods: Mapping[str, Method]
) -> tuple[Rewrite, Mapping[str, tuple[int, AddedTensor]]]:
    """The rewrites of one site as one."""
    (_, first), *_ = found
    site = first.site
    if site.kind in APART:
        raise fail(CannotStack(problem=f"`{site.key}`: {APART[site.kind]}"))
    naming = _Naming()
    applications = tuple(
        naming.renamed(one, number) for number, r in found for one in r.applications
    )
    whole = Rewrite(site, applications)
    if not applications:
        return whole, {}
    told = composed(whole, methods)
    if {d.name for d in told.declarations} != naming.sources.keys():
        problem = f"`{site.key}`: the tensors of a wrapper have the names of others"
        raise fail(CannotStack(problem=problem))
    start = told.start if site.kind == "attention" else 0
    return replace(whole, start=start), naming.sources


class _Naming:
    """Instances at one site, renamed so that no two are alike."""

    def __init__(self) -> None:
        self.sources: dict[str, tuple[int, AddedTensor]] = {}
        self._seen: Counter[str] = Counter()

    def renamed(self, one: Application, number: int) -> Application:
        """The application of a plan of this number, under a name of its own."""
        self._seen[one.method] += 1
        count = self._seen[one.method]
        instance = one.method if count == 1 else f"{one.method}#{count}"
        return replace(
            one,
            instance=instance,
            tensors=tuple(self._tensors(one, instance, number)),
            wraps=tuple(self.renamed(part, number) for part in one.wraps),
            group=f"{one.group}/{number}" if one.group else "",
        )

    def _tensors(
        self, one: Application, instance: str, number: int
    ) -> Iterator[AddedTensor]:
        for tensor in one.tensors:
            name = instance + tensor.name.removeprefix(one.instance)
            self.sources[name] = (number, tensor)
            shared = f"{tensor.shared}/{number}" if tensor.shared else ""
            yield replace(tensor, name=name, shared=shared)


def _moved(rewrite: Rewrite, starts: Mapping[str, int]) -> Rewrite:
    """A table of positions, read as much further on as all methods move tokens."""
    if rewrite.applications:
        return rewrite
    site = rewrite.site
    start, rows = starts.get(site.stack, 0), site.size("in")
    if start >= rows:
        raise fail(PositionsDoNotFit(table=site.weight, rows=rows, start=start))
    return replace(rewrite, merge=Merge("none", "tokens start later"), start=start)
