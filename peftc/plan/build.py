"""From the Spec to the Plan: every application at its site, with its tensors.

In: `Applied`s and the `ModelView` they were resolved against.  Out: a `Plan` whose
merge classes, programs and memory the plan passes fill in.  Nothing is allocated: all
sizes are Python integers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.core import (
    Diagnostic,
    Diagnostics,
    PeftcError,
    fail,
    suggestion,
)
from peftc.diagnostics.plan import (
    NoTap,
    NotWholeAtSite,
    TiedWeight,
    UnknownDtype,
)
from peftc.diagnostics.wrappers import NoTensorFits
from peftc.expr.ir import Literal, depends_on
from peftc.expr.knobs import bind_knobs
from peftc.expr.places import TAP
from peftc.expr.sizes import NotWhole, Size
from peftc.expr.wrap import over_tensors
from peftc.plan.beside import check_beside, with_networks
from peftc.plan.equations import composed, equation_of, knob_sizes
from peftc.plan.insertions import check_insertions
from peftc.plan.numbers import Numbers
from peftc.plan.positions import moved_tables
from peftc.plan.stores import stored_weights
from peftc.plan.types import (
    DTYPE_BYTES,
    DTYPES,
    AddedTensor,
    Application,
    ModelFacts,
    Plan,
    Rewrite,
)
from peftc.plan.wrapped import changes, with_tensors
from peftc.syntax import ast
from peftc.syntax.print import print_expr, print_guard
from peftc.view import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.expr.equation import Declaration, Equation
    from peftc.resolve.spec import Applied
    from peftc.syntax.source import Span
    from peftc.view import ModelView, Site


def build(
    spec: Sequence[Applied], view: ModelView, *, seed: int = 0, dtype: str = "auto"
) -> Plan:
    """Make the plan of a spec for a model.

    Raises:
        PeftcError: with every error of knobs and sizes at any site, or PEFT310.
    """
    if dtype not in DTYPES:
        hint = suggestion(str(dtype).removeprefix("torch."), DTYPES)
        raise fail(UnknownDtype(dtype=str(dtype), known=", ".join(DTYPES), hint=hint))
    count = sum(prod(p.shape) for p in view.parameters)
    size = sum(prod(p.shape) * DTYPE_BYTES.get(p.dtype, 4) for p in view.parameters)
    facts = ModelFacts(view.architecture, view.config_hash, count, view.layers, size)
    methods = dict(_methods(spec))
    naming = _Naming(_groups(spec), Numbers.of(_every(spec), view))
    stores, rest = stored_weights(spec, view)
    made = _rewrites([a for a in rest if a.site is not MODEL], view, naming)
    check_beside(rest, made)
    parts = (_applications(a, naming) for a in spec if a.site is MODEL)
    whole = tuple(one for some in parts for one in some)
    rewrites = (*moved_tables(made, view), *made)
    more: dict[str, Any] = {"whole": whole, "stores": stores}
    return Plan(facts, seed, dtype, tuple(methods.values()), rewrites, **more)


def _methods(spec: Sequence[Applied]) -> Iterator[tuple[str, ast.Method]]:
    """Every method that is applied, wrapped ones too, in order of appearance."""
    for applied in _every(spec):
        yield applied.method.name, replace(applied.method, leading=())


def _rewrites(
    spec: Sequence[Applied], view: ModelView, naming: _Naming
) -> tuple[Rewrite, ...]:
    errors = Diagnostics()
    at: dict[str, list[Applied]] = {}
    for applied in spec:
        at.setdefault(applied.site.key, []).append(applied)
    found = []
    sides = {a.site.key: a.site for a in spec if a.site.kind == "side"}
    for site in (*view.sites, *sides.values()):
        try:
            if site.key in at:
                found.append(_rewrite(site, at[site.key], naming, view))
        except PeftcError as error:
            errors.absorb(error)
    for idle in filter(None, naming.idle.values()):
        errors.add(_without_effect(idle))
    _check_once(errors)
    return tuple(found)


def _without_effect(wrapper: Applied) -> NoTensorFits:
    guards = (print_guard(clause.guard) for clause in wrapper.method.clauses)
    guard = ", or ".join(dict.fromkeys(guards)) or "it is trained"
    return NoTensorFits(span=wrapper.call, method=wrapper.method.name, guard=guard)


def _check_once(errors: Diagnostics) -> None:
    """Raise; the same trouble from the same text, at many sites, is one error."""
    kept: dict[object, Diagnostic] = {}
    for error in errors:
        tensor = error.tensor if isinstance(error, NotWholeAtSite) else ""
        kept.setdefault((type(error), error.span, tensor), error)
    if kept:
        raise PeftcError(kept.values())


def _groups(spec: Sequence[Applied]) -> Mapping[Span, str]:
    """A name for each application in the spec; its sites may share tensors."""
    names: dict[Span, str] = {}
    counts: Counter[str] = Counter()
    for one in _every(spec):
        if one.call not in names:
            counts[one.method.name] += 1
            names[one.call] = f"{one.method.name}:{counts[one.method.name]}"
    return names


def _every(spec: Sequence[Applied]) -> Iterator[Applied]:
    """All that is applied, wrapped ones behind their wrapper."""
    for applied in spec:
        yield applied
        yield from _every(applied.inner)


def _rewrite(
    site: Site, parts: Sequence[Applied], naming: _Naming, view: ModelView
) -> Rewrite:
    if site.tied and site.kind == "linear":
        raise fail(TiedWeight(span=parts[0].span, site=site.key, other=site.tied))
    naming = replace(naming, seen=Counter())
    every = (_applications(part, naming) for part in parts)
    applications = tuple(one for some in every for one in some)
    if site.kind == "side":
        applications = with_networks(parts, applications, view)
    rewrite = Rewrite(site, applications, start=_start(site, parts, applications))
    if site.kind == "input":
        check_insertions(rewrite, dict(_methods(parts)), view, parts[-1].span)
    return rewrite


def _start(
    site: Site, parts: Sequence[Applied], applications: Sequence[Application]
) -> int:
    """By how much the methods at an attention move the first position."""
    if site.kind != "attention":
        return 0
    methods = dict(_methods(parts))
    return composed(Rewrite(site, tuple(applications)), methods).start


@dataclass
class _Naming:
    """Instance names at one site: `lora`, then `lora#2`; of each application in the
    spec, the name of its share group, and what its knobs are worked out from."""

    groups: Mapping[Span, str]
    numbers: Numbers
    idle: dict[Span, Applied | None] = field(default_factory=dict)
    """Wrappers over tensors that have changed none so far."""
    seen: Counter[str] = field(default_factory=Counter)

    def next(self, method: str) -> str:
        self.seen[method] += 1
        count = self.seen[method]
        return method if count == 1 else f"{method}#{count}"


def _applications(applied: Applied, naming: _Naming) -> tuple[Application, ...]:
    """The application; where it is a wrapper that changes nothing, what it wraps."""
    bare = _bare(applied, naming)
    group = naming.groups[applied.call]
    if not over_tensors(applied.method):
        return (_with_tensors(applied, bare, group),)
    methods = dict(_methods([applied]))
    if not changes(bare, applied.site, methods):
        naming.idle.setdefault(applied.call, applied)
        return bare.wraps
    naming.idle[applied.call] = None
    clauses = applied.method.clauses
    written = dict(pair for clause in clauses for pair in _written(clause))
    number = partial(_whole, applied=applied)
    text = partial(_init, written=written)
    controlled = any(isinstance(s, ast.Train) for c in clauses for s in c.body)
    bare = replace(bare, group=group if controlled else "")
    return (with_tensors(bare, applied.site, methods, number, text),)


def _with_tensors(applied: Applied, bare: Application, group: str) -> Application:
    """An application that is no wrapper over tensors, with its own."""
    alone = {applied.method.name: applied.method}
    equation = equation_of(replace(bare, wraps=()), applied.site, alone)
    _check(applied, equation)
    tensors = tuple(_tensors(applied, bare, equation, group))
    return replace(bare, tensors=tensors, group=group if equation.controls else "")


def _bare(applied: Applied, naming: _Naming) -> Application:
    """The application without its tensors."""
    instance = naming.next(applied.method.name)
    site, method = applied.site, applied.method
    sizes = naming.numbers.sizes(site, applied.call)
    given = naming.numbers.given(applied.knobs, site, applied.call)
    knobs = bind_knobs(method, given, sizes, applied.span)
    wraps = (_applications(part, naming) for part in applied.inner)
    return Application(
        instance,
        method.name,
        applied.clause,
        tuple(knobs.items()),
        tensors=(),
        origin=str(applied.span),
        wraps=tuple(one for some in wraps for one in some),
    )


def _tensors(
    applied: Applied, application: Application, equation: Equation, group: str
) -> Iterator[AddedTensor]:
    """The method's own tensors; those of what it wraps are the inner applications'."""
    site, method = applied.site, applied.method
    sizes = {**dict(site.sizes), **knob_sizes(application)}
    written = dict(_written(method.clauses[applied.clause]))
    for declared in equation.declarations:
        shape = tuple(_whole(a, sizes, declared, applied) for a in declared.axes)
        init = _init(declared, written)
        extent = "x".join(map(str, shape))
        shared = f"{group}/{declared.name}/{extent}" if declared.shared else ""
        if site.experts and not shared:  # experts share what sites share
            shape = (site.experts, *shape)
        if shared and site.kind == "attention":
            shared += f"/{_attention_kind(site)}"
        yield AddedTensor(declared.name, shape, declared.kind, init, shared)


def _attention_kind(site: Site) -> str:
    """Attentions of an encoder, of a decoder and across share nothing."""
    return "cross" if site.cross else site.stack or "self"


def _check(applied: Applied, equation: Equation) -> None:
    """Refuse what an equation asks for and the site or this version cannot give."""
    name, span, site = applied.method.name, applied.span, applied.site
    reads = any(depends_on(rule, {TAP}) for rule in equation.rules.values())
    if site.kind in ("hidden", "attention") and reads and not site.tap:
        raise fail(NoTap(span=span, method=name, name="u", site=site.key))


def _whole(
    axis: Size, sizes: Mapping[str, int], declared: Declaration, applied: Applied
) -> int:
    try:
        return axis.value(sizes)
    except NotWhole as problem:
        numbers = ", ".join(f"{n}={sizes[n]}" for n in sorted(axis.symbols))
        raise fail(
            NotWholeAtSite(
                span=applied.span,
                tensor=declared.name,
                size=str(axis),
                value=str(problem.value),
                site=applied.site.key,
                numbers=numbers,
            )
        ) from None


def _written(clause: ast.Clause) -> Iterator[tuple[str, ast.Tensor]]:
    for statement in clause.body:
        if isinstance(statement, ast.Declare):
            for tensor in statement.tensors:
                yield tensor.name, tensor


def _init(declared: Declaration, written: Mapping[str, ast.Tensor]) -> str:
    """Canonical text of the initial value, its numbers put in."""
    init = declared.init
    if init.distribution:
        return f"{init.distribution}({', '.join(map(_number, init.args))})"
    if isinstance(init.node, Literal):
        return _number(init.node.value)
    source = written[declared.name.rpartition(".")[2]].init
    assert source is not None
    assert not isinstance(source, ast.Random)
    return print_expr(source)


def _number(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return str(int(value)) if value == int(value) else repr(value)
