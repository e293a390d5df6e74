"""One generated kernel function, and what it was made from.

In: a joint program, a direction and the gradients that are wanted.  Out: `Generated`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.codegen.kernels.formulas import values
from peftc.codegen.kernels.source import KernelSource, kernel_source

if TYPE_CHECKING:
    from peftc.expr.joint_program import JointProgram

Direction: TypeAlias = Literal["forward", "backward"]


@dataclass(frozen=True)
class Generated:
    """A function by its names: `takes` and `gives` are arguments and results.

    `wide` is as in `torch_source`.
    """

    program: JointProgram
    biases: frozenset[str]
    wide: str
    direction: Direction
    wanted: tuple[str, ...]
    source: KernelSource

    @property
    def text(self) -> str:
        """The module."""
        text: str = getattr(self.source, self.direction)
        return text

    @property
    def title(self) -> str:
        """The direction, and what it is of as the plan's first line says it."""
        plan = self.text.partition("\n")[0]
        return f"{self.direction} of {plan.removeprefix('# joint ')}"

    @property
    def takes(self) -> tuple[str, ...]:
        """The names of the arguments."""
        if self.direction == "forward":
            return self.source.inputs
        return (*(f"d{y}" for y in self.source.results), *self.source.saved)

    @property
    def gives(self) -> tuple[str, ...]:
        """The names of the results."""
        if self.direction == "forward":
            return (*self.source.results, *self.source.kept)
        return self.source.gradients

    @cached_property
    def tokens(self) -> tuple[bool, ...]:
        """Which of the arguments have rows for tokens."""
        active = {name for name, value in values(self.program).items() if value.tokens}
        return tuple(name in active | {"x"} for name in self.takes)


def generated(
    program: JointProgram,
    biases: frozenset[str],
    wide: str,
    direction: Direction,
    wanted: tuple[str, ...],
) -> Generated:
    """The function of this direction, if these gradients are wanted.

    Raises:
        NoSourceError: if a step has no form.
    """
    source = kernel_source(program, wanted, biases)
    return Generated(program, biases, wide, direction, wanted, source)
