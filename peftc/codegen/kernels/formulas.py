"""Steps whose axes are labelled.

In: the steps of a joint program whose token axes are one.  Out: a `Formula` for each,
in which every axis of every argument has a letter and equal letters are one axis; the
tokens are `*`.  All that follows tells axes apart by these letters, never by their
sizes: two axes of rank 8 are not one.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_letters
from typing import TYPE_CHECKING

from peftc.codegen.torch_writer import base_weight

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftc.expr.joint_program import JointProgram
    from peftc.expr.program import Step

TOKENS = "*"


@dataclass(frozen=True)
class Value:
    """A value: its axes behind the tokens, and whether it has those."""

    name: str
    shape: tuple[int, ...]
    tokens: bool

    @property
    def row(self) -> str:
        """A letter for each axis."""
        return TOKENS * self.tokens + ascii_letters[: len(self.shape)]


@dataclass(frozen=True)
class Formula:
    """A step, with the letters of its arguments and its result.

    Without `rows` it is a function of whole tensors, which nothing looks into.
    """

    step: Step
    rows: tuple[str, ...]
    row: str

    @property
    def name(self) -> str:
        """The value that it computes."""
        return self.step.out

    @property
    def summed(self) -> str:
        """The letters that the result does not have, in their order."""
        every = "".join(dict.fromkeys("".join(self.rows)))
        return "".join(letter for letter in every if letter not in self.row)


def values(program: JointProgram) -> dict[str, Value]:
    """Everything that has a name in a program."""
    steps = (*program.forward.steps, *program.backward.steps)
    found = [Value(one.name, one.shape, one.tokens) for one in program.inputs]
    found += [Value(mask.name, mask.shape, True) for mask in program.masks]
    found += [Value(step.out, step.shape, step.tokens) for step in steps]
    return {value.name: value for value in found}


def formulas(steps: Iterable[Step], known: Mapping[str, Value]) -> list[Formula]:
    """A formula for each step."""
    return [
        Formula(step, (), Value(step.out, step.shape, step.tokens).row)
        if base_weight(step)
        else _formula(step, [known[name] for name in step.args])
        for step in steps
    ]


def _formula(step: Step, args: list[Value]) -> Formula:
    row = Value(step.out, step.shape, step.tokens).row
    if step.op == "ein":
        before, _, out = step.spec.partition("->")
        return Formula(step, tuple(before.split(",")), out)
    if step.op == "linear":
        last = len(args[0].shape) - 1
        before, k, n = (
            ascii_letters[:last],
            ascii_letters[last],
            ascii_letters[last + 1],
        )
        return Formula(step, (f"*{before}{k}", f"{n}{k}"), f"*{before}{n}")
    if step.op in ("add", "map") or step.fn == "detach":
        return Formula(step, tuple(_behind(arg, row) for arg in args), row)
    return Formula(step, (), row)


def _behind(arg: Value, row: str) -> str:
    """The letters of a term: those of the result, but for missing tokens; or none."""
    return TOKENS * arg.tokens + row.removeprefix(TOKENS) * bool(arg.shape)
