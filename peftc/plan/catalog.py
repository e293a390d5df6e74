"""The standard library as a table: of each method what it is, and what follows from it.

In: a library.  Out: an `Entry` for each method and spec.  Family, paper and the first
sentence are what the text says; the primitives and whether it merges are derived from
the clauses, at made-up sites.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.diagnostics.core import PeftcError
from peftc.expr.compose import compose
from peftc.expr.elaborate import elaborate
from peftc.expr.knobs import Given, bind_knobs, knob_types
from peftc.expr.merge import Merged, derive_merge
from peftc.expr.scope import kind_of
from peftc.expr.stores import is_store
from peftc.syntax import ast
from peftc.syntax.print import print_expr
from peftc.view import Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.resolve.library import Library
    from peftc.view import Kind

PRIMITIVES: Mapping[str, str] = {
    "linear": "a",
    "norm": "a",
    "param": "a",
    "embedding": "a",
    "hidden": "b",
    "attention": "c",
    "input": "d",
    "side": "e",
    "model": "f",
}
"""By place: a reparametrise a weight, b insert on an edge, c extend attention, d edit
the input, e attach a side graph, f control training."""

FAMILY = re.compile(r"Family: ([\w ]+)\.")
PAPER = re.compile(r"\barXiv (\d{4}\.\d{4,5})")

SIZE = 64
"""Of every axis of a made-up site."""


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    `merge` is `exact`, `none`, `partly`, `as wrapped` for what changes the tensors of
    another method, or `-` for what has no weights.
    """

    name: str
    family: str
    primitives: str
    merge: str
    paper: str
    rewrites: str
    knobs: str
    about: str


def catalog(library: Library) -> Iterator[Entry]:
    """The methods of a library, then its specs."""
    for method in library.methods.values():
        places = ", ".join(dict.fromkeys(clause.place for clause in method.clauses))
        yield _entry(method, library, places)
    for macro in library.macros.values():
        yield _entry(macro, library, "spec")


def _entry(item: ast.Method | ast.Macro, library: Library, rewrites: str) -> Entry:
    text = " ".join(item.leading)
    family, paper = FAMILY.search(text), PAPER.search(text)
    return Entry(
        item.name,
        family[1] if family else "",
        "".join(sorted(_primitives(item, library))),
        _merge(item, library),
        paper[1] if paper else "",
        rewrites,
        ", ".join(map(_knob, item.params)),
        _about(item.leading),
    )


def _about(comments: tuple[str, ...]) -> str:
    """The first sentence, without the name that the paper stands behind."""
    first = comments[0].lstrip("# ") if comments else ""
    return first.partition("): ")[2] or first


def _knob(knob: ast.Parameter) -> str:
    return f"{knob.name}={print_expr(knob.default)}" if knob.default else knob.name


def _parts(
    item: ast.Method | ast.Macro, library: Library
) -> tuple[ast.Method | ast.Macro, ...]:
    """What a spec applies; a method is itself."""
    if isinstance(item, ast.Method):
        return (item,)
    known: Mapping[str, ast.Method | ast.Macro]
    known = {**library.methods, **library.macros}
    named = dict.fromkeys(_applied(item.body, library))
    return tuple(known[name] for name in named if name in known)


def _applied(expr: ast.SpecExpr, library: Library) -> Iterator[str]:
    """What an expression applies; of a wrapper, not what it wraps."""
    match expr:
        case ast.Sum(terms):
            for term in terms:
                yield from _applied(term, library)
        case ast.Scoped(body):
            yield from _applied(body, library)
        case ast.Apply(name):
            yield name


# --- primitives ----------------------------------------------------------------------


def _primitives(item: ast.Method | ast.Macro, library: Library) -> set[str]:
    if isinstance(item, ast.Macro):
        parts = _parts(item, library)
        return set().union(*(_primitives(part, library) for part in parts))
    found: set[str] = set()
    for clause in item.clauses:
        found.add(PRIMITIVES.get(kind_of(clause.place) or clause.place, ""))
        if any(isinstance(s, ast.Train | ast.Loss) for s in clause.body):
            found.add("f")
    return found - {""}


# --- merging -------------------------------------------------------------------------


def _merge(item: ast.Method | ast.Macro, library: Library) -> str:
    """Whether it goes into the weights, over all clauses."""
    parts = _parts(item, library)
    if isinstance(item, ast.Macro):
        found = {_merge(part, library) for part in parts}
    else:
        found = {_clause_merge(item, clause) for clause in item.clauses}
    found -= {"", "-"}
    return found.pop() if len(found) == 1 else "partly" if found else "-"


def _given(method: ast.Method) -> Mapping[str, Given]:
    """A value for every size that has no default."""
    types = knob_types(method)
    unset = (p.name for p in method.params if p.default is None)
    return {name: Given(1) for name in unset if types[name].whole}


def _clause_merge(method: ast.Method, clause: ast.Clause) -> str:
    kind = kind_of(clause.place)
    if kind == "param":
        return "as wrapped"
    if kind not in ("linear", "norm"):
        return "" if kind == "model" else "none"
    if any(p.type == "method" for p in method.params):
        return "none"
    if is_store(clause):
        return ""
    site = _site(kind)
    try:
        sizes = {**dict(site.sizes), "sites": 1}
        knobs = bind_knobs(method, _given(method), sizes)
        equation = elaborate(clause, knobs, sizes, "m.")
        composed = compose(kind, [equation], biased=True)
        whole = {n: v for n, v in knobs.items() if isinstance(v, int)}
        env = {**sizes, **{f"m.{name}": int(value) for name, value in whole.items()}}
        merged = isinstance(derive_merge(composed, env, site), Merged)
    except PeftcError:
        return "none"
    return "exact" if merged else "none"


def _site(kind: Kind) -> Site:
    axes = ("in", "out") if kind == "linear" else ("hidden",)
    sizes = tuple((axis, SIZE) for axis in axes)
    return Site("m:m", "", kind, "m", sizes, "float32", weight="m.w", bias="m.b")
