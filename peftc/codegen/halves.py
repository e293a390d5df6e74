"""The two functions that a joint program becomes: what each takes, computes and gives.

In: a `JointProgram` whose token axes are one, and the gradients that are wanted.  Out:
`Halves`, from which a source is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.codegen.torch_writer import NoSourceError, base_weight, variable
from peftc.expr.grouped import beside, site_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step


@dataclass(frozen=True)
class Halves:
    """What both functions are made of.

    `like` is an activation that is taken.  `back` are the backward's steps and before
    them the forward's that it does again, of both those that the gradients depend on,
    and `reads` what these do not make themselves; `bases` compute the bases' own
    outputs, those of them that are read, by name: a linear's are computed, a value of
    another place is given.
    """

    results: Mapping[str, str]
    adjoints: tuple[str, ...]
    back: tuple[Step, ...]
    inputs: tuple[str, ...]
    kept: tuple[str, ...]
    saved: tuple[str, ...]
    reads: frozenset[str]
    gradients: Mapping[str, str]
    bases: Mapping[str, str]
    like: str


def halved(
    program: JointProgram, wanted: Iterable[str], biases: Collection[str]
) -> Halves:
    """The halves of a program; `biases` are those that the bases' linears have.

    Raises:
        NoSourceError: if tokens are told apart.
    """
    if program.separate_tokens:
        raise NoSourceError("samples and tokens are told apart")
    results = dict(program.forward.results)
    asked = {name: v for name, v in program.backward.results if name in set(wanted)}
    back = _needed(program.backward.steps, asked.values())
    repeated = [step for step in program.forward.steps if step.out in program.again]
    again = _needed(repeated, _reads(back, asked.values()))
    read = _reads((*again, *back), asked.values())
    outputs = {*results} if is_linear(program) else set[str]()
    made = outputs | {step.out for step in program.forward.steps}
    kept = tuple(sorted(read & made))
    based = {y for y in outputs if _is_read(program, y)}
    inputs = tuple(dict.fromkeys(_inputs(program, biases)))
    return Halves(
        results=results,
        adjoints=tuple(f"d{name}" for name in results),
        back=(*again, *back),
        inputs=inputs,
        kept=kept,
        saved=tuple(name for name in (*inputs, *kept) if name in read),
        reads=frozenset(read),
        gradients=asked,
        bases={y: _base(y, biases) for y in results if y in based},
        like=like(program),
    )


def is_linear(program: JointProgram) -> bool:
    """Whether what is replaced are outputs of linears; else it is a value."""
    return all(site_of(name)[0] == "y" for name, _ in program.forward.results)


def like(program: JointProgram) -> str:
    """The activation whose tokens and type all others have."""
    if is_linear(program):
        return "x"
    adjoints = {f"d{name}" for name, _ in program.forward.results}
    return next(i.name for i in program.inputs if i.tokens and i.name not in adjoints)


def base_text(value: str, weight: str, biases: Collection[str]) -> str:
    """The base's linear of a value; with its bias if it is one of `biases`."""
    bias = beside("bias", weight)
    offset = f", {variable(bias)}" if bias in biases else ""
    return f"F.linear({value}, {variable(weight)}{offset})"


def _base(y: str, biases: Collection[str]) -> str:
    return base_text("x", beside("W", y), biases)


def _inputs(program: JointProgram, biases: Collection[str]) -> Iterator[str]:
    """What the forward takes: what each base needs, then what else is read."""
    steps = (*program.forward.steps, *program.backward.steps)
    applied = {base_weight(step) for step in steps}
    made = {f"d{name}" for name, _ in program.forward.results}
    linears = program.forward.results if is_linear(program) else ()
    for y, _ in linears:
        weight, bias = beside("W", y), beside("bias", y)
        if weight in applied or _is_read(program, y):
            yield from ("x", weight, *((bias,) if bias in biases else ()))
        made.add(y)
    yield from (like(program),) * bool(program.masks)
    yield from (one.name for one in program.inputs if one.name not in made)


def _is_read(program: JointProgram, name: str) -> bool:
    return any(one.name == name for one in program.inputs)


def _needed(steps: Sequence[Step], results: Iterable[str]) -> list[Step]:
    """Those of the steps that the results depend on, in their order."""
    needed, found = set(results), []
    for step in reversed(steps):
        if step.out in needed:
            found.append(step)
            needed |= set(step.args)
    return found[::-1]


def _reads(steps: Sequence[Step], results: Iterable[str]) -> set[str]:
    """The names that steps and results read, and steps do not make."""
    own = {step.out for step in steps}
    weights = {weight for step in steps if (weight := base_weight(step))}
    return ({a for s in steps for a in s.args} | weights | set(results)) - own
