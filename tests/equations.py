"""Methods of tests as equations and programs: definitions in `tests/golden/programs`.

A file's first lines give the numbers it is tried with: `# sizes:` large ones, at which
its program is a golden file, and `# odd:` small ones, at which numbers are compared.
Names that are no axes are knobs; `biased` says that the site has a bias.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from peftc.expr.compose import Composed, compose
from peftc.expr.elaborate import elaborate
from peftc.expr.knobs import Given, bind_knobs
from peftc.expr.places import AXES
from peftc.syntax.parse import parse_method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.expr.equation import Equation
    from peftc.syntax.ast import Method
    from peftc.view import Kind

FOLDER = Path(__file__).parent / "golden" / "programs"
GATE = """method gate(inner: method) on linear {
  param w[in] ~ normal(0.02), c[] = 0
  y' = y + sigmoid(w(x) + c) * (inner(y) - y)
}"""
CASES = sorted(path.stem for path in FOLDER.glob("*.peft"))


@dataclass(frozen=True)
class Stack:
    """Equations at one site of some sizes."""

    equations: tuple[Equation, ...]
    kind: Kind
    env: Mapping[str, int]

    def composed(self, biased: bool) -> Composed:
        """All of them as one."""
        return compose(self.kind, self.equations, biased)


@dataclass(frozen=True)
class Instance:
    """A method at a site of some sizes."""

    equation: Equation
    kind: Kind
    env: Mapping[str, int]


def read(name: str) -> Method:
    """The method of a case."""
    return parse_method((FOLDER / f"{name}.peft").read_text(encoding="utf-8"), name)


def numbers(name: str, line: str) -> tuple[dict[str, int], bool]:
    """The numbers of a case's `# sizes:` or `# odd:`, and whether it says `biased`."""
    text = (FOLDER / f"{name}.peft").read_text(encoding="utf-8")
    match = re.search(rf"^# {line}: (.*)$", text, re.MULTILINE)
    assert match, f"{name} has no line of {line} numbers"
    words = match[1].split()
    pairs = (word.split("=") for word in words if "=" in word)
    return {key: int(value) for key, value in pairs}, "biased" in words


def instance(
    method: Method,
    given: Mapping[str, int],
    prefix: str,
    inner: Sequence[Equation] = (),
) -> Instance:
    """A method where axes and knobs have the given numbers."""
    (clause,) = method.clauses
    kind = cast("Kind", clause.place)
    sizes = {axis: given[axis] for axis in AXES[kind]}
    named = {p.name for p in method.params}
    values = {k: Given(v) for k, v in given.items() if k in named}
    knobs = bind_knobs(method, values, sizes)
    wrapped = {p.name: inner for p in method.params if p.type == "method"}
    env = {f"{prefix}{k}": v for k, v in knobs.items() if isinstance(v, int)}
    equation = elaborate(clause, knobs, sizes, prefix, wrapped)
    return Instance(equation, kind, {**sizes, **env})


def case(name: str, line: str = "odd", prefix: str = "") -> Instance:
    """A case at one of its two sets of numbers."""
    given, _ = numbers(name, line)
    return instance(read(name), given, prefix or f"{name}.")


def stack(names: Sequence[str], line: str = "odd") -> Stack:
    """Cases at one site, written in this order."""
    seen: Counter[str] = Counter()
    parts = []
    for name in names:
        seen[name] += 1
        number = f"#{seen[name]}" if seen[name] > 1 else ""
        parts.append(case(name, line, f"{name}{number}."))
    env = {k: v for part in parts for k, v in part.env.items()}
    return Stack(tuple(part.equation for part in parts), parts[0].kind, env)


def gated(names: Sequence[str], line: str = "odd") -> Stack:
    """The same with a learned gate around them."""
    inner = stack(names, line)
    gate = instance(parse_method(GATE), inner.env, "gate.", inner.equations)
    return Stack((gate.equation,), gate.kind, {**inner.env, **gate.env})


def define(text: str, given: Mapping[str, int], prefix: str = "m.") -> Instance:
    """A method given as text."""
    return instance(parse_method(text), given, prefix)
