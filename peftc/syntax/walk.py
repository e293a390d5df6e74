"""Going over a tree without recursion, and what is checked on the way."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from peftc.diagnostics.core import suggestion
from peftc.diagnostics.syntax import (
    DuplicateArgument,
    SeveralSpecs,
    TooDeep,
    UnknownBinder,
)
from peftc.syntax import ast
from peftc.syntax.limits import MAX_OPERATIONS
from peftc.syntax.tokens import BINDERS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peftc.diagnostics.core import Diagnostic


ASIDE = frozenset({"span", "leading", "trailing", "closing"})
_PARTS: dict[str, tuple[str, ...]] = {}


def parts_of(node: ast.Node) -> tuple[str, ...]:
    """The fields in which a node of this class keeps others; looked up once."""
    name = type(node).__name__
    if name not in _PARTS:
        _PARTS[name] = tuple(f.name for f in fields(node) if f.name not in ASIDE)
    return _PARTS[name]


def children(node: ast.Node) -> Iterator[ast.Node]:
    """The nodes directly below one, in order."""
    stack = [getattr(node, name) for name in reversed(parts_of(node))]
    while stack:
        part = stack.pop()
        if isinstance(part, ast.Node):
            yield part
        elif isinstance(part, tuple):
            stack.extend(reversed(part))


def walk(roots: Iterable[ast.Node]) -> Iterator[tuple[ast.Node, int]]:
    """Every node with its depth, parents first, in the order of the text.

    An argument counts as deep as the call it is in.
    """
    stack = [(root, 1) for root in reversed(tuple(roots))]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        deeper = depth + (not isinstance(node, ast.Arg))
        below = [(child, deeper) for child in children(node)]
        stack.extend(reversed(below))


def faults(items: tuple[ast.Node, ...]) -> Iterator[Diagnostic]:
    """What the grammar lets through and the language does not."""
    mains = [item for item in items if isinstance(item, ast.Main)]
    for extra in mains[1:]:
        yield SeveralSpecs(span=extra.span, first=mains[0].span.line)
    for node, depth in walk(items):
        if depth > MAX_OPERATIONS:
            hint = "name parts of the equation and use the names"
            what = "operations"
            yield TooDeep(span=node.span, limit=MAX_OPERATIONS, what=what, hint=hint)
            return
        if isinstance(node, ast.Apply):
            yield from _given_twice(node)
        elif isinstance(node, ast.Binder) and node.kind not in BINDERS:
            yield _unknown_binder(node)


def _given_twice(node: ast.Apply) -> Iterator[Diagnostic]:
    seen: set[str] = set()
    for arg in node.args:
        if arg.name and arg.name in seen:
            yield DuplicateArgument(span=arg.span, name=arg.name)
        seen.add(arg.name)


def _unknown_binder(node: ast.Binder) -> UnknownBinder:
    return UnknownBinder(
        span=node.span,
        word=node.kind,
        known=", ".join(BINDERS),
        hint=suggestion(node.kind, BINDERS),
    )
