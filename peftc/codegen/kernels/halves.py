"""The two functions that a joint program becomes: what each takes, computes and gives.

In: a `JointProgram` whose token axes are one, and the gradients that are wanted.  Out:
`Halves`, from which a source is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step


class NoSourceError(Exception):
    """A program has a step that has no form here."""


@dataclass(frozen=True)
class Halves:
    """What both functions are made of.

    `back` are the backward's steps and before them the forward's that it does again,
    of both those that the gradients depend on; `base` computes the base's own output,
    if it is read.
    """

    result: str
    back: tuple[Step, ...]
    inputs: tuple[str, ...]
    kept: tuple[str, ...]
    saved: tuple[str, ...]
    gradients: Mapping[str, str]
    base: str


def halved(program: JointProgram, wanted: Iterable[str], *, biased: bool) -> Halves:
    """The halves of a program for one result.

    Raises:
        NoSourceError: if tokens are told apart, or several values are replaced.
    """
    if program.separate_tokens or len(program.forward.results) != 1:
        raise NoSourceError("tokens are told apart, or several values replaced")
    ((_, result),) = program.forward.results
    every = (*program.forward.steps, *program.backward.steps)
    asked = {name: v for name, v in program.backward.results if name in set(wanted)}
    back = _needed(program.backward.steps, asked.values())
    read = _reads(back, asked.values())
    repeated = [step for step in program.forward.steps if step.out in program.again]
    again = _needed(repeated, read)
    read |= {name for step in again for name in step.args}
    made = {"y"} | {step.out for step in program.forward.steps}
    done = {step.out for step in again}
    kept = tuple(sorted(read & made - done))
    given = [one.name for one in program.inputs if not one.name.startswith("dy")]
    based = "y" in given or any(s.op in ("base", "product") for s in every)
    needs = ("x", "W") + ("bias",) * biased if based else ()
    inputs = tuple(dict.fromkeys(n for n in (*needs, *given) if n != "y"))
    return Halves(
        result=result,
        back=(*again, *back),
        inputs=inputs,
        kept=kept,
        saved=tuple(name for name in (*inputs, *kept) if name in read),
        gradients=asked,
        base=f"F.linear(x, W{', bias' * biased})" if "y" in given else "",
    )


def _needed(steps: Sequence[Step], results: Iterable[str]) -> list[Step]:
    """Those of the steps that the results depend on, in their order."""
    needed, found = set(results), []
    for step in reversed(steps):
        if step.out in needed:
            found.append(step)
            needed |= set(step.args)
    return found[::-1]


def _reads(steps: Sequence[Step], results: Iterable[str]) -> set[str]:
    own = {step.out for step in steps}
    return ({a for step in steps for a in step.args} | set(results)) - own


def variable(name: str) -> str:
    """A value's name in the text."""
    return (
        f"v{name[1:]}"
        if name.startswith("%")
        else name.replace(".", "_").replace("#", "_")
    )
