"""In which order a direction is computed, and by what.

In: the formulas of a direction, what is given, and what has to be at hand afterwards.
Out: parts: steps for torch, and kernels.  A kernel is of one of two templates:

row      a program owns a block of tokens; its phases go over one wide axis each
column   a program owns a block of one wide axis, or none, and some of the tokens,
         which it goes over

For few tokens a row kernel has a second form, of a third template (`split`).

There is no search: whatever torch can do is done first, then all that is ready for a
block of tokens joins one kernel, phase after phase; then sums over tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.codegen.kernels.work import kind_of

if TYPE_CHECKING:
    from collections.abc import (
        Collection,
        Container,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from peftc.codegen.kernels.formulas import Formula
    from peftc.codegen.kernels.spaces import Place, Spaces
    from peftc.codegen.kernels.work import Kind

Template: TypeAlias = Literal["row", "column", "split"]


@dataclass(frozen=True)
class Phase:
    """One loop: over `space`, with these sums and with these values stored.

    `narrow` are stored after it.  Without a space there is no loop.
    """

    space: Place | None
    sums: tuple[str, ...] = ()
    stores: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """A kernel's work.  The one phase of a column kernel has the axis that it owns.

    A split kernel ends what another left, whose sums are its first phase's, and leaves
    the sums of its second phase in parts.
    """

    template: Template
    phases: tuple[Phase, ...]

    @property
    def is_flat(self) -> bool:
        """Whether blocks of the wide axis are independent: no loop is needed."""
        (first, *others) = self.phases
        alone = not (others or first.sums or first.narrow)
        return self.template == "row" and alone

    @property
    def made(self) -> tuple[str, ...]:
        """What it stores whole, or, over tokens, in parts."""
        return tuple(
            name
            for phase in self.phases
            for name in (*phase.sums, *phase.stores, *phase.narrow)
            if name not in self.left
        )

    @property
    def left(self) -> tuple[str, ...]:
        """The sums over features that it leaves in parts, for another to add."""
        return self.phases[1].sums if self.template == "split" else ()


Part: TypeAlias = "Formula | Kernel"
"""A formula stands for a line of torch."""


class Direction:
    """The formulas of a direction, of which the `wanted` have to be at hand at its end.

    Masks are values too, which every kernel draws again.
    """

    def __init__(
        self,
        formulas: Sequence[Formula],
        spaces: Spaces,
        masks: Mapping[str, Kind],
        wanted: Iterable[str],
    ) -> None:
        self.spaces = spaces
        self.by_name = {formula.name: formula for formula in formulas}
        self.kinds: dict[str, Kind] = {f.name: kind_of(f, spaces) for f in formulas}
        self.kinds |= masks
        self.stored = self._stored(wanted)

    def parts(self, given: Iterable[str]) -> list[Part]:
        """What computes the stored values, in order."""
        have = set(given)
        todo = [n for n in self.kinds if n in self.stored and n not in have]
        found: list[Part] = []
        while todo:
            made = self._next(todo, have)
            assert made, f"nothing is ready of {todo}"
            found += made
            have |= {name for part in made for name in outputs(part)}
            todo = [name for name in todo if name not in have]
        return found

    def is_inside(self, name: str, again: Container[str] = ()) -> bool:
        """Whether a kernel computes a value for itself; so it does those of `again`."""
        kind = self.kinds.get(name)
        free = kind in ("wide", "narrow") and (name not in self.stored or name in again)
        return kind == "constant" or free

    def _stored(self, wanted: Iterable[str]) -> set[str]:
        """Wanted values, sums, all of torch's, and what those and column sums read.

        A narrow value is small, and a column kernel would compute it again for each
        block of columns.
        """
        found = {*wanted}
        for name, formula in self.by_name.items():
            kind, args = self.kinds[name], formula.step.args
            found |= {name} if kind in ("host", "down", "column") else set()
            found |= set(args) if kind == "host" else set()
            narrow = {arg for arg in args if self.kinds.get(arg) == "narrow"}
            found |= narrow if kind == "column" else set()
        return found

    def _reads(self, name: str, again: Container[str]) -> set[str]:
        """The stored values that a value is computed from."""
        formula = self.by_name.get(name)
        found: set[str] = set()
        for arg in formula.step.args if formula else ():
            if self.kinds.get(arg) == "constant" and self.kinds[name] != "host":
                continue
            inside = self.kinds[name] != "host" and self.is_inside(arg, again)
            found |= self._reads(arg, again) if inside else {arg}
        return found

    # --- what is next -----------------------------------------------------------------

    def _next(self, todo: Sequence[str], have: set[str]) -> list[Part]:
        ready = [name for name in todo if self._reads(name, ()) <= have]
        host = [n for n in ready if self.kinds[n] in ("host", "constant")]
        if host:
            return [self.by_name[name] for name in host]
        row = self._row_kernel(todo, have)
        return [row] if row.phases else list(self._column_kernels(ready))

    def _row_kernel(self, todo: Sequence[str], have: set[str]) -> Kernel:
        """All that is ready for a block of tokens, or is once its phases are run."""
        phases: list[Phase] = []
        while True:
            done = Kernel("row", tuple(phases)).made
            ready = self._ready([n for n in todo if n not in done], have, done)
            if not ready:
                return Kernel("row", tuple(phases))
            phases = self._with_phase(phases, ready)

    def _ready(
        self, todo: Sequence[str], have: set[str], done: Collection[str]
    ) -> list[str]:
        """What a block of tokens can give after `done`, wide values computed again.

        So what reads a wide value joins the loop that stores it.
        """
        again = {name for name in done if self.kinds[name] == "wide"}
        known = have | ({*done} - again)
        ready: list[str] = []
        for name in todo:
            kind = self.kinds[name]
            fits = kind in ("wide", "narrow", "down")
            if fits and self._reads(name, again) <= known:
                ready.append(name)
                again |= {name} if kind == "wide" else set()
        return ready

    def _with_phase(self, phases: list[Phase], ready: Sequence[str]) -> list[Phase]:
        """Narrow values join the last phase; of the others one space gets a phase."""
        narrow = tuple(name for name in ready if self.kinds[name] == "narrow")
        if narrow:
            *before, last = phases or [Phase(None)]
            return [*before, replace(last, narrow=last.narrow + narrow)]
        space = self._space(ready[0])
        same = [name for name in ready if self._space(name) == space]
        sums = tuple(name for name in same if self.kinds[name] == "down")
        stores = tuple(name for name in same if self.kinds[name] == "wide")
        return [*phases, Phase(space, sums, stores)]

    def _column_kernels(self, ready: Sequence[str]) -> Iterator[Part]:
        groups: dict[Place | None, list[str]] = {}
        for name in ready:
            groups.setdefault(self._space(name), []).append(name)
        for space, names in groups.items():
            yield Kernel("column", (Phase(space, tuple(names)),))

    def _space(self, name: str) -> Place | None:
        """The wide axis that the work on a value goes over, or owns."""
        if self.kinds[name] != "down":
            return self.spaces.wide(name)
        formula = self.by_name[name]
        return self.spaces.letters(formula)[formula.summed]


def outputs(part: Part) -> tuple[str, ...]:
    """The values that a part stores."""
    return part.made if isinstance(part, Kernel) else (part.name,)
