"""The Spec: which method is applied at which site of a model.

In: `Request`s and a `ModelView`.  Out: `Applied`, one for each method at each site, in
written order, each with the clause of the method that fits the site.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from peftc.diagnostics.attention import AttentionNotFound, WrappedRows
from peftc.diagnostics.core import Diagnostics, PeftcError, fail
from peftc.diagnostics.resolve import GuardLeavesNothing, WrongKind
from peftc.diagnostics.stores import StorageWrapped
from peftc.expr.knobs import Given, bind_knobs, knob_types
from peftc.expr.stores import is_store
from peftc.expr.wrap import over_tensors
from peftc.resolve.groups import with_layers
from peftc.resolve.idle import check_idle
from peftc.resolve.selectors import Selector, check_layers, reasons, select
from peftc.syntax import ast
from peftc.syntax.print import print_guard

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from peftc.resolve.requests import Request
    from peftc.syntax.source import Span
    from peftc.view import ModelView, Site

LEADING = ("q", "k", "v", "o", "attn")
"""Roles from which a clause `on attention` is led to the attention of the sublayer."""


@dataclass(frozen=True)
class Applied:
    """A method at a site.

    `call` is where the spec applies the method, `span` the selector that led here;
    `inner` are the methods a wrapper wraps, at this site.
    """

    site: Site
    method: ast.Method
    clause: int
    knobs: Mapping[str, Given]
    call: Span
    span: Span
    inner: tuple[Applied, ...] = ()


def apply_to(requests: Sequence[Request], view: ModelView) -> tuple[Applied, ...]:
    """Find the sites of every request.

    Raises:
        PeftcError: with the errors of all requests.
    """
    errors = Diagnostics()
    found: list[Applied] = []
    for request in requests:
        try:
            found += _applied(request, view)
        except PeftcError as error:
            errors.absorb(error)
    errors.check()
    return tuple(found)


def _applied(request: Request, view: ModelView) -> tuple[Applied, ...]:
    if request.inner:
        return _wrapped(request, view)
    check_layers(request.scopes, view)
    request = replace(request, scopes=with_layers(request.scopes, view))
    errors = Diagnostics()
    at: dict[str, Applied] = {}  # overlapping selectors mean a site once
    for selector in request.selectors:
        try:
            for applied in _selected(request, selector, view):
                at.setdefault(applied.site.key, applied)
        except PeftcError as error:
            errors.absorb(error)
    errors.check()
    check_idle(request, [applied.clause for applied in at.values()])
    return tuple(at.values())


def _wrapped(request: Request, view: ModelView) -> tuple[Applied, ...]:
    """One wrapper for each site that anything inside is applied to."""
    inner = apply_to(request.inner, view)
    sites: dict[str, list[Applied]] = {}
    for applied in inner:
        sites.setdefault(applied.site.key, []).append(applied)
    return tuple(_wrap(request, tuple(parts)) for parts in sites.values())


def _wrap(request: Request, inner: tuple[Applied, ...]) -> Applied:
    site = inner[0].site
    _check_stores(request, inner)
    if site.kind == "attention" and not over_tensors(request.method):
        _check_rows(request, inner)
    method, knobs, call = request.method, request.knobs, request.span
    if over_tensors(method):  # each tensor has its clause
        return Applied(site, method, 0, knobs, call, call, inner)
    own = [i for i, c in enumerate(method.clauses) if c.place == site.kind]
    clause = next(
        (i for i in own if _holds(method.clauses[i].guard, method, knobs, site)), None
    )
    if clause is None:
        raise fail(_no_wrapper(request, site, [method.clauses[i] for i in own]))
    return Applied(site, method, clause, knobs, call, call, inner)


def _no_wrapper(
    request: Request, site: Site, clauses: Sequence[ast.Clause]
) -> WrongKind | GuardLeavesNothing:
    """Why no clause of a wrapper fits a site."""
    if not clauses:
        return _wrong_kind(request, site, site.role, request.span)
    return GuardLeavesNothing(
        span=request.span,
        method=request.method.name,
        guard=", or ".join(print_guard(clause.guard) for clause in clauses),
        count=1,
        target=site.place,
    )


def _check_stores(request: Request, inner: tuple[Applied, ...]) -> None:
    """A wrapper reads what a method makes of values; a storage makes nothing."""
    for one in inner:
        if is_store(one.method.clauses[one.clause]):
            names = {"name": one.method.name, "wrapper": request.method.name}
            raise fail(StorageWrapped(span=one.call, **names))


def _check_rows(request: Request, inner: tuple[Applied, ...]) -> None:
    """A wrapper reads the rows of one method."""
    name, hint = request.method.name, ""
    first = inner[0]
    clause = first.method.clauses[first.clause]
    ruled = (s.target for s in clause.body if isinstance(s, ast.Rule))
    if len(inner) > 1:
        problem = f"`{name}` wraps {len(inner)} methods at {first.site.place}"
        hint = f"wrap each by itself: `{name}(a) + {name}(b)`"
    elif not first.inner and not {"k", "v"} & set(ruled):
        problem = f"`{first.method.name}` adds no rows for `{name}` to read"
    else:
        return
    raise fail(WrappedRows(span=inner[-1].call, problem=problem, hint=hint))


def _selected(
    request: Request, selector: Selector, view: ModelView
) -> Iterator[Applied]:
    """The applications at the sites of one selector; guards may leave sites out."""
    sites = select(selector, request.scopes, view)
    fits = partial(_clause_for, request.method, request.knobs, view)
    fitting = [match for site in sites for match in fits(site)]
    if sites and not fitting:
        raise fail(_unfit(request, selector, sites, view))
    method, knobs, call = request.method, request.knobs, request.span
    if not selector.optional:
        _check_led(request, selector, view, fitting, sites)
    for clause, target in fitting:
        yield Applied(target, method, clause, knobs, call, selector.span)


def _clause_for(
    method: ast.Method, knobs: Mapping[str, Given], view: ModelView, site: Site
) -> tuple[tuple[int, Site], ...]:
    """The first clause that fits a site, and each site it then rewrites.

    A redirection (`ffn.down`) is preferred over the site's kind, and that over the
    attention of its sublayer.
    """

    def rank(numbered: tuple[int, ast.Clause]) -> int:
        place = numbered[1].place
        return 0 if "." in place else 1 if place == site.kind else 2

    for index, clause in sorted(enumerate(method.clauses), key=rank):
        targets = _targets(clause.place, site, view)
        fitting = [t for t in targets if _holds(clause.guard, method, knobs, t)]
        if fitting:
            return tuple((index, target) for target in fitting)
    return ()


def _targets(place: str, site: Site, view: ModelView) -> tuple[Site, ...]:
    """The sites a clause of this place rewrites when applied to `site`."""
    block, _, role = place.partition(".")
    if not role and place == site.kind:
        return (site,)
    if role and site.role == block:
        kinds = (role, f"experts.{role}")
        found = (next(_beside(site, kind, view), None) for kind in kinds)
        return tuple(target for target in found if target is not None)
    if place == "attention" and site.role in LEADING:
        return tuple(_beside(site, "attention", view))
    return ()


def _beside(site: Site, role: str, view: ModelView) -> Iterator[Site]:
    """The sites of a role in the same sublayer."""
    same = (site.stack, site.layer, site.cross)
    beside = (s for s in view.sites if (s.stack, s.layer, s.cross) == same)
    return (s for s in beside if s.role == role and not s.fused)


def _holds(
    guard: ast.Guard, method: ast.Method, knobs: Mapping[str, Given], site: Site
) -> bool:
    """Whether all tests of one alternative hold at a site."""
    true = partial(_is_true, method=method, knobs=knobs, site=site)
    return not guard or any(all(map(true, tests)) for tests in guard)


def _is_true(
    test: ast.Test, method: ast.Method, knobs: Mapping[str, Given], site: Site
) -> bool:
    """A fact of the site; a flag, a number that is not 0, or a word of a knob."""
    facts = {"biased": bool(site.bias), "causal": site.causal}
    if test.name in facts:
        return facts[test.name]
    sizes = {**dict(site.sizes), "sites": 1}  # not counted before sites are chosen
    known = {n: g for n, g in knobs.items() if not g.formula or n == test.name}
    for knob in method.params:
        if knob.default is None and knob.name in knobs:
            known.setdefault(knob.name, Given(1))  # it decides nothing here
    value = bind_knobs(method, known, sizes)[test.name]
    return value == test.word if test.word else bool(value)


def _check_led(
    request: Request,
    selector: Selector,
    view: ModelView,
    fitting: Sequence[tuple[int, Site]],
    sites: Sequence[Site],
) -> None:
    """Refuse to leave out sites whose attention was not found."""
    clauses = request.method.clauses
    if not any(clauses[index].place == "attention" for index, _ in fitting):
        return
    for site in sites:
        if site.role in LEADING and not any(_beside(site, "attention", view)):
            raise fail(_no_attention(selector, site, view))


def _no_attention(selector: Selector, site: Site, view: ModelView) -> AttentionNotFound:
    found = any(s.kind == "attention" for s in view.sites)
    hint = "leave these layers out with `@ layers(...)`" if found else ""
    return AttentionNotFound(
        span=selector.span,
        target=str(selector),
        site=site.place,
        reason=reasons("attention", view),
        hint=hint,
    )


def _unfit(
    request: Request, selector: Selector, sites: tuple[Site, ...], view: ModelView
) -> WrongKind | GuardLeavesNothing | AttentionNotFound:
    """Why no clause fits any of the sites."""
    places = {clause.place for clause in request.method.clauses}
    lead = [site for site in sites if site.role in LEADING]
    if "attention" in places and lead and not any(_beside(lead[0], "attention", view)):
        return _no_attention(selector, lead[0], view)
    guards = {
        print_guard(c.guard)
        for c in request.method.clauses
        if c.place in (sites[0].kind, *_redirections(request.method, sites[0]))
    }
    if not guards:
        return _wrong_kind(request, sites[0], str(selector), selector.span)
    flags = [n for n, t in knob_types(request.method).items() if t.name == "flag"]
    flags = [name for name in flags if any(name in guard for guard in guards)]
    return GuardLeavesNothing(
        span=selector.span,
        method=request.method.name,
        guard=", or ".join(sorted(guards)),
        count=len(sites),
        target=str(selector),
        hint=f"`{flags[0]}=true` lifts the condition" if flags else "",
    )


def _redirections(method: ast.Method, site: Site) -> tuple[str, ...]:
    prefix = f"{site.role}."
    led = ("attention",) if site.role in LEADING else ()
    places = (c.place for c in method.clauses if c.place.startswith(prefix))
    return (*places, *led)


def _wrong_kind(request: Request, site: Site, target: str, span: Span) -> WrongKind:
    places = dict.fromkeys(f"`{c.place}`" for c in request.method.clauses)
    return WrongKind(
        span=span,
        method=request.method.name,
        places=", ".join(places),
        target=target,
        kind=f"{'an' if site.kind[0] in 'ae' else 'a'} {site.kind} site",
        hint=_other_sites(site, places),
    )


def _other_sites(site: Site, places: Collection[str]) -> str:
    """Which sites a method with clauses at these places can be applied to."""
    if set(places) == {"`attention`"}:
        return "an attention is reached by q, k, v, o, attn and attention"
    hints = {
        "attn": "its linears are q, k, v, o",
        "ffn": "its linears are up, gate, down",
    }
    return hints.get(site.role, "") if site.kind == "hidden" else ""
