"""Which weights are stored otherwise, from the parts of the spec that say so.

In: a spec and its view.  Out: a `StoredWeight` for each weight, in the model's order,
and the rest of the spec.  A fused weight is stored as a whole, so that all of its parts
have to be named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostic, PeftcError
from peftc.diagnostics.plan import TiedWeight
from peftc.diagnostics.stores import NeverStored, RowsNotStored, StoredTwice
from peftc.expr.elaborate import elaborate
from peftc.expr.knobs import bind_knobs
from peftc.expr.stores import is_store
from peftc.plan.types import StoredWeight
from peftc.storage.table import FLOATING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from peftc.resolve.spec import Applied
    from peftc.view import ModelView, ParameterFact, Site


def stored_weights(
    spec: Sequence[Applied], view: ModelView
) -> tuple[tuple[StoredWeight, ...], tuple[Applied, ...]]:
    """The stored weights, and what else the spec applies.

    Raises:
        PeftcError: PEFT303 or PEFT345 to PEFT347, with all errors.
    """
    rest = tuple(a for a in spec if not is_store(a.method.clauses[a.clause]))
    at: dict[str, list[Applied]] = {}
    for applied in spec:
        if is_store(applied.method.clauses[applied.clause]):
            at.setdefault(applied.site.weight, []).append(applied)
    _check(one for parts in at.values() for one in _problems(parts, view))
    known = {p.name: p for p in view.parameters}
    return tuple(_stored(at[name], known[name]) for name in known if name in at), rest


def _check(problems: Iterable[Diagnostic]) -> None:
    """Raise; the same trouble from the same text, at many weights, is one error."""
    kept: dict[object, Diagnostic] = {}
    for problem in problems:
        kept.setdefault((type(problem), problem.span), problem)
    if kept:
        raise PeftcError(kept.values())


def _problems(parts: Sequence[Applied], view: ModelView) -> Iterator[Diagnostic]:
    first = parts[0]
    site, span = first.site, first.span
    if site.tied:
        yield TiedWeight(span=span, site=site.key, other=site.tied)
    if site.role == "router":
        yield NeverStored(span=span, site=site.place, problem="it is a router")
    if site.dtype not in FLOATING:
        yield NeverStored(span=span, site=site.place, problem=f"it is {site.dtype}")
    yield from _twice(parts)
    if not _whole(parts, view):
        yield _rows(first, view)


def _twice(parts: Sequence[Applied]) -> Iterator[Diagnostic]:
    """Another application, or one that means the same rows again."""
    first, seen = parts[0], set[str]()
    for part in parts:
        if part.call != first.call or part.site.key in seen:
            weight, origin = part.site.weight, f"`{first.call.text}`"
            yield StoredTwice(span=part.span, weight=weight, origin=origin)
        seen.add(part.site.key)


def _beside(site: Site, view: ModelView) -> list[Site]:
    """All sites that are rows of a weight."""
    same = (s for s in view.sites if s.weight == site.weight)
    return [s for s in same if s.kind == "linear" and s.rows is not None]


def _whole(parts: Sequence[Applied], view: ModelView) -> bool:
    """Whether the parts are all rows of their weight."""
    if any(part.site.rows is None for part in parts):
        return True
    wanted = {s.key for s in _beside(parts[0].site, view)}
    return {part.site.key for part in parts} >= wanted


def _rows(part: Applied, view: ModelView) -> RowsNotStored:
    site, beside = part.site, _beside(part.site, view)
    return RowsNotStored(
        span=part.span,
        site=site.place,
        weight=site.weight,
        count=site.size("out"),
        total=sum(s.size("out") for s in beside),
        parts=", ".join(s.role for s in beside),
    )


def _stored(parts: Sequence[Applied], fact: ParameterFact) -> StoredWeight:
    first = parts[0]
    method, site = first.method, first.site
    sizes = dict(site.sizes)
    knobs: Mapping[str, int | float | str | bool]
    knobs = bind_knobs(method, first.knobs, sizes, first.span)
    equation = elaborate(method.clauses[first.clause], knobs, sizes)
    (store,) = equation.stores
    return StoredWeight(
        fact.name,
        store.form,
        fact.shape,
        fact.dtype,
        site.transposed,
        method.name,
        str(first.span),
    )
