"""Wrappers over tensors: the clauses `on param` of a method, at what it wraps.

In: the equation of a wrapped method at a site, and a wrapper with its knobs.  Out: that
equation with `p'` in the place of each trained tensor p that a clause is for.  A tensor
that nothing reads any more is no longer declared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.expr import ir
from peftc.expr.elaborate import Body, at_site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.expr.controls import Control
    from peftc.expr.equation import Declaration, Equation
    from peftc.expr.ir import Node
    from peftc.syntax import ast
    from peftc.view import Kind

GIVEN: Mapping[str, tuple[str, ...]] = {
    "linear": ("out",),
    "hidden": ("hidden",),
    "norm": ("hidden",),
    "attention": ("key", "value"),
}
"""The axes of what a site gives: a tensor whose first axis is one of them is `up`."""


def over_tensors(method: ast.Method) -> bool:
    """Whether a method is a wrapper over the tensors of what it wraps."""
    return method.clauses[0].place == "param"


@dataclass(frozen=True)
class Wrapper:
    """One application of such a method at a site of some kind.

    `instance` is in front of the names of its tensors and sizes; `sizes` are those of
    the site.
    """

    method: ast.Method
    knobs: Mapping[str, int | float | str | bool]
    instance: str
    kind: Kind
    sizes: Mapping[str, int]

    def clause_for(self, declared: Declaration) -> int | None:
        """The number of the clause for a tensor, or None if it stays as it is."""
        if declared.kind != "param":
            return None
        facts = self._facts(declared)
        for number, clause in enumerate(self.method.clauses):
            if not clause.guard or any(
                all(self._holds(test, facts) for test in tests)
                for tests in clause.guard
            ):
                return number
        return None

    def _facts(self, declared: Declaration) -> Mapping[str, bool]:
        own = declared.axes[declared.leading :]
        up = any(str(axis) in GIVEN[self.kind] for axis in own[:1])
        return {"matrix": len(own) > 1, "up": up, "down": not up}

    def _holds(self, test: ast.Test, facts: Mapping[str, bool]) -> bool:
        if test.name in facts:
            return facts[test.name]
        value = self.knobs[test.name]
        return value == test.word if test.word else bool(value)

    def wrap(self, equation: Equation) -> Equation:
        """The equation with the tensors of its method changed."""
        bodies = dict(self._bodies(equation))
        if not bodies:
            return equation
        controls = [c for body in bodies.values() for c in body.controls]
        new = _values(bodies)
        origins = dict(equation.origins)
        for body in bodies.values():
            origins |= body.scope.origins
        targets = list(equation.rules)
        losses = [n for body in bodies.values() for n in body.losses]
        roots = ir.replace([*equation.rules.values(), *equation.losses], new, origins)
        roots += losses
        return replace(
            equation,
            declarations=tuple(_declared(equation, bodies, roots)),
            rules=dict(zip(targets, roots, strict=False)),
            losses=tuple(roots[len(targets) :]),
            controls=(*equation.controls, *controls),
            origins=origins,
        )

    def values(self, equation: Equation) -> dict[Node, Node]:
        """For each tensor that is changed, what is read in its place."""
        return _values(dict(self._bodies(equation)))

    def controls(self, equation: Equation) -> Iterator[tuple[object, Control]]:
        """What controls its tensors while they are trained, each with the number of its
        clause and its own."""
        for declared, body in self._bodies(equation):
            for index, control in enumerate(body.controls):
                yield (self.clause_for(declared), index), control

    def _bodies(self, equation: Equation) -> Iterator[tuple[Declaration, Body]]:
        """For each tensor that is changed, its clause as it was read for it."""
        for declared in equation.declarations:
            number = self.clause_for(declared)
            if number is None:
                continue
            scope = at_site("param", self.knobs, self.sizes, f"{self.instance}.")
            scope.tensor = declared.leaf
            common = f"{self.instance}." if not number else f"{self.instance}.{number}."
            body = Body(scope, f"{self.instance}.{declared.name}.", common=common)
            body.read(self.method.clauses[number])
            body.errors.check()
            yield declared, body


def _values(bodies: Mapping[Declaration, Body]) -> dict[Node, Node]:
    return {one.leaf: body.scope.rules["p"] for one, body in bodies.items()}


def _declared(
    equation: Equation, bodies: Mapping[Declaration, Body], roots: list[Node]
) -> Iterator[Declaration]:
    """What is declared now; tensors in common once, those that are not read not."""
    read = set(ir.walk(*roots))
    seen: set[str] = set()
    for declared in equation.declarations:
        body = bodies.get(declared)
        if body is None or declared.leaf in read:
            yield declared
        for one in body.declarations if body else ():
            if one.name not in seen:
                seen.add(one.name)
                yield _made(one, declared)


def _made(new: Declaration, of: Declaration) -> Declaration:
    """A tensor that a wrapper adds for another."""
    rest = new.axes[len(new.axes) - len(of.axes) :] == of.axes
    leading = of.leading + len(new.axes) - len(of.axes) if rest else 0
    init = replace(of.init, copies=of.name) if new.init.copies else new.init
    return replace(new, init=init, leading=leading, of=of.name)
