"""Which axes are features.

In: formulas.  Out: for each axis of each value its *space*: axes to which some formula
gives one letter are of one space.  A space is wide, so that a kernel goes over it in
blocks, if it is the last axis of an activation of the site or has many elements; all
others are held whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from peftc.codegen.kernels.formulas import TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftc.codegen.kernels.formulas import Formula, Value

LARGEST = 128
"""An axis that is held whole has so many elements at most: with them a block of 64
tokens is 64 registers for each thread of four warps."""

Place: TypeAlias = "tuple[str, int]"
"""An axis: a value and the number of the axis, the tokens not counted."""


class Spaces:
    """The space of every axis."""

    def __init__(
        self,
        known: Mapping[str, Value],
        every: Iterable[Formula],
        activations: Iterable[str],
    ) -> None:
        self._of: dict[Place, Place] = {}
        self._known = known
        for formula in every:
            self._join(formula)
        last = [(name, len(known[name].shape) - 1) for name in activations]
        self._wide = {self._find(place) for place in last if place[1] >= 0}

    def letters(self, formula: Formula) -> dict[str, Place]:
        """The space of each letter of a formula."""
        names = (*formula.step.args, formula.name)
        return {
            letter: self._find((name, number))
            for name, row in zip(names, (*formula.rows, formula.row), strict=True)
            for number, letter in enumerate(row.removeprefix(TOKENS))
        }

    def of(self, name: str) -> tuple[Place, ...]:
        """The spaces of a value's axes."""
        shape = self._known[name].shape
        return tuple(self._find((name, number)) for number in range(len(shape)))

    def size(self, space: Place) -> int:
        """How many elements it has."""
        name, number = space
        return self._known[name].shape[number]

    def is_wide(self, space: Place) -> bool:
        """Whether kernels go over it in blocks."""
        return space in self._wide or self.size(space) > LARGEST

    def wide(self, name: str) -> Place | None:
        """The one wide space of a value, if it has one."""
        found = [space for space in self.of(name) if self.is_wide(space)]
        return found[0] if found else None

    def _join(self, formula: Formula) -> None:
        seen: dict[str, Place] = {}
        names = (*formula.step.args, formula.name)
        for name, row in zip(names, (*formula.rows, formula.row), strict=False):
            if not formula.rows:
                return
            for number, letter in enumerate(row.removeprefix(TOKENS)):
                place = self._find((name, number))
                self._of[self._find(seen.setdefault(letter, place))] = place
                seen[letter] = place

    def _find(self, place: Place) -> Place:
        while self._of.get(place, place) != place:
            place = self._of[place]
        return place
