"""Knobs that are given and change nothing.

In: a request and the clauses of its method that its sites take.  Out: nothing, or one
error for each knob that only other clauses read.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics
from peftc.diagnostics.stores import KnobIdle
from peftc.expr.uses import body_names, expressions, names_in, tests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peftc.resolve.requests import Request
    from peftc.syntax import ast


def check_idle(request: Request, clauses: Iterable[int]) -> None:
    """Refuse knobs that no clause in use reads; where all sites may be missing, and
    are, there is none.

    Raises:
        PeftcError: PEFT288.
    """
    method, taken = request.method, set(clauses)
    if not taken:
        return
    used = _used(method, [method.clauses[index] for index in taken])
    errors = Diagnostics()
    for name, given in request.knobs.items():
        if name in body_names(method) and name not in used:
            errors.add(KnobIdle(span=given.span, method=method.name, name=name))
    errors.check()


def _used(method: ast.Method, clauses: list[ast.Clause]) -> set[str]:
    """What the clauses read, what decided between clauses, and what defaults of these
    read."""
    asked = {test.name for clause in method.clauses for test in tests(clause)}
    read = map(names_in, chain.from_iterable(map(expressions, clauses)))
    used = asked.union(*read)
    defaults = {p.name: names_in(p.default) for p in method.params if p.default}
    while new := set().union(*(defaults.get(n, ()) for n in used)) - used:
        used |= new
    return used
