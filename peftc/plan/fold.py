"""The plan that an export keeps: what is computed from added tensors alone, computed.

In: a plan.  Out: `Folding`: a plan in which such parts of methods are tensors of their
own, wherever that takes fewer scalars, and what these tensors hold.  The definitions in
the plan are those that are left, so it is a plan like any other; its merge classes and
programs are to be made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

from peftc.expr.fold import Folded, fold_clause
from peftc.expr.ir import replace as replace_nodes
from peftc.expr.wrap import over_tensors
from peftc.plan.equations import definitions, environment, equation_of, knob_sizes
from peftc.plan.types import AddedTensor, Application, Knob, Merge, Plan, Rewrite
from peftc.plan.unwrap import Part, unwrap

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.syntax import ast
    from peftc.view import Site

Group: TypeAlias = tuple[str, int, tuple[tuple[str, Knob], ...]]
"""A method, one of its clauses, and its knobs: what one folded clause is made for."""


@dataclass(frozen=True)
class Folding:
    """A plan after folding, and its new tensors; `parts` are none if nothing folds."""

    plan: Plan
    parts: tuple[Part, ...] = ()


@dataclass
class _Clause:
    """A clause that is folded, with the number it gets in its method."""

    folded: Folded
    number: int
    before: dict[tuple[str, str], int] = field(default_factory=dict)
    after: int = 0


def fold(plan: Plan) -> Folding:
    """Fold what takes fewer scalars when folded: wrappers, then method by method."""
    plain, values = unwrap(plan)
    if any(map(over_tensors, plain.methods)):  # they read what clauses declare
        return Folding(plan)
    folding = _fold(plain)
    if not values:
        return folding
    before = {r.site.key: r for r in plan.rewrites}
    sizes = {key: environment(rewrite) for key, rewrite in before.items()}
    parts = []
    for part in folding.parts:
        key = part.rewrite.site.key
        own = {v.leaf: v.node for v in values if v.leaf and v.rewrite is before[key]}
        (node,) = replace_nodes([part.node], own)
        parts.append(replace(part, rewrite=before[key], node=node, sizes=sizes[key]))
    left = {(r.site.key, t.name) for r in folding.plan.rewrites for t in r.tensors}
    kept = (v for v in values if (v.rewrite.site.key, v.tensor.name) in left)
    return Folding(folding.plan, (*kept, *parts))


def _fold(plan: Plan) -> Folding:
    """Fold closed parts of clauses, method by method."""
    methods = definitions(plan)
    clauses = _clauses(plan, methods)
    if not clauses:
        return Folding(plan)
    kept = {name: _method(method, clauses) for name, method in methods.items()}
    work = _Work(clauses, kept)
    rewrites = tuple(map(work.rewrite, plan.rewrites))
    return Folding(
        replace(plan, methods=tuple(kept.values()), rewrites=rewrites),
        tuple(work.parts),
    )


def _group(application: Application) -> Group:
    return application.method, application.clause, application.knobs


def _applications(
    applications: Sequence[Application],
) -> Iterator[Application]:
    """All of them, wrapped ones too."""
    for application in applications:
        yield application
        yield from _applications(application.wraps)


def _clauses(plan: Plan, methods: Mapping[str, ast.Method]) -> dict[Group, _Clause]:
    """The clauses that are smaller when folded."""
    found: dict[Group, _Clause] = {}
    refused: set[Group] = set()
    for rewrite in plan.rewrites:
        for one in _applications(rewrite.applications):
            group, method = _group(one), methods[one.method]
            if group not in found and group not in refused:
                sizes = dict(rewrite.site.sizes)
                clause = method.clauses[one.clause]
                folded = fold_clause(method, clause, dict(one.knobs), sizes)
                if folded is None or rewrite.site.experts:
                    refused.add(group)
                    continue
                found[group] = _Clause(folded, 0)
            if group in found:
                _count(found[group], one, rewrite.site, method)
    smaller = {g: c for g, c in found.items() if c.after < sum(c.before.values())}
    for name, method in methods.items():
        _number([c for g, c in smaller.items() if g[0] == name], len(method.clauses))
    return smaller


def _number(clauses: Sequence[_Clause], first: int) -> None:
    """Number folded clauses of a method from `first`; equal ones are one."""
    distinct = list(dict.fromkeys(clause.folded.clause for clause in clauses))
    for clause in clauses:
        clause.number = first + distinct.index(clause.folded.clause)


def _count(clause: _Clause, one: Application, site: Site, method: ast.Method) -> None:
    """Add the scalars that one application loses and gets."""
    declared = {t.name for t in _tensors(one, site, method, clause.folded)}
    for tensor in one.tensors:
        if tensor.name not in declared:
            clause.before[tensor.shared or site.key, tensor.name] = tensor.count
    known = {t.name for t in one.tensors}
    new = _tensors(one, site, method, clause.folded)
    clause.after += sum(t.count for t in new if t.name not in known)


def _tensors(
    one: Application, site: Site, method: ast.Method, folded: Folded
) -> list[AddedTensor]:
    """The tensors of an application whose clause is folded."""
    alone = replace(method, clauses=(folded.clause,))
    bare = replace(one, clause=0, wraps=())
    known = {tensor.name: tensor for tensor in one.tensors}
    sizes = {**dict(site.sizes), **knob_sizes(one)}
    return [
        known.get(d.name)
        or AddedTensor(d.name, tuple(a.value(sizes) for a in d.axes), "param", "0")
        for d in equation_of(bare, site, {method.name: alone}).declarations
    ]


def _method(method: ast.Method, clauses: Mapping[Group, _Clause]) -> ast.Method:
    """A method with its folded clauses behind the others."""
    new = [c.folded.clause for group, c in clauses.items() if group[0] == method.name]
    return replace(method, clauses=(*method.clauses, *dict.fromkeys(new)))


@dataclass
class _Work:
    clauses: Mapping[Group, _Clause]
    methods: Mapping[str, ast.Method]
    parts: list[Part] = field(default_factory=list)

    def rewrite(self, rewrite: Rewrite) -> Rewrite:
        """A rewrite with its applications folded; programs are to be made."""
        applications = tuple(self._fold(rewrite, a) for a in rewrite.applications)
        return replace(rewrite, applications=applications, merge=Merge(), programs=())

    def _fold(self, rewrite: Rewrite, one: Application) -> Application:
        wraps = tuple(self._fold(rewrite, part) for part in one.wraps)
        clause = self.clauses.get(_group(one))
        if clause is None:
            return replace(one, wraps=wraps)
        site, method = rewrite.site, self.methods[one.method]
        tensors = _tensors(one, site, method, clause.folded)
        named = {tensor.name: tensor for tensor in tensors}
        sizes = {**dict(site.sizes), **knob_sizes(one)}
        start = f"{one.instance}."
        nodes = clause.folded.nodes(dict(one.knobs), dict(site.sizes), start)
        for name, node in zip(clause.folded.parts, nodes, strict=True):
            self.parts.append(Part(rewrite, named[start + name], node, sizes))
        return replace(one, clause=clause.number, tensors=tuple(tensors), wraps=wraps)
