"""Errors of design spaces: `one_of(...)` and `range(...)` in specs.

In: nothing.  Out: the diagnostic classes that `peftc.resolve.space` and the search
raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class OpenSpace(Diagnostic):
    """A spec leaves something open, and a model is compiled from one that does not.

    `one_of(4, 8)` and `range(1, 64)` stand for several values, and `one_of(lora(q),
    ia3(k))` for several methods: such a spec is a design space.

    Example: `peftc plan 'lora(q, r=one_of(4, 8))' MODEL`

    Fix: write the value you want, or let `peftc search SPACE MODEL DATA` find it; the
    best spec is a file that compiles.
    """

    code: ClassVar[str] = "PEFT681"
    title: ClassVar[str] = "a design space, not a spec"
    label: ClassVar[str] = "`{word}` leaves this open"
    help: ClassVar[str] = "`peftc search SPACE MODEL DATA -o DIR` explores it"
    word: str


@dataclass(frozen=True, kw_only=True)
class BadAlternatives(Diagnostic):
    """`one_of` or `range` is not written as it must be.

    `one_of` takes two alternatives or more, all values or all specs, none of them
    twice.  `range(low, high)` takes two numbers, the lower first, and perhaps the word
    `log`, with which small values are tried as often as large ones; it is of whole
    numbers if both are.  Both ends belong to it.

    Wrong: `lora(q, r=range(64, 1))`, `one_of(lora(q), 4)`, `one_of(8)`

    Right: `lora(q, r=range(1, 64, log))`, `one_of(lora(q), ia3(k))`, `one_of(4, 8)`
    """

    code: ClassVar[str] = "PEFT682"
    title: ClassVar[str] = "not a choice"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class NothingOpen(Diagnostic):
    """`peftc search` explores what a spec leaves open, and this one leaves nothing.

    At least one value or method must be `one_of(...)` or `range(...)`.

    Example: `peftc search 'lora(q, r=8)' MODEL DATA -o DIR`

    Fix: `lora(q, r=one_of(4, 8, 16))`; to train one spec, `peftc train`.
    """

    code: ClassVar[str] = "PEFT683"
    title: ClassVar[str] = "nothing to search"
    label: ClassVar[str] = "the spec has neither `one_of` nor `range`"
    help: ClassVar[str] = "`peftc train` trains a spec as it is"


@dataclass(frozen=True, kw_only=True)
class WordOfChoice(Diagnostic):
    """A method or spec has the name of a word that stands for a choice.

    `one_of` and `range` are read as choices wherever they are applied, so a definition
    of that name could never be used.

    Wrong: `spec one_of() = lora(q)`

    Fix: another name.
    """

    code: ClassVar[str] = "PEFT684"
    title: ClassVar[str] = "the name is taken by the language"
    label: ClassVar[str] = "`{name}` stands for a choice in specs"
    help: ClassVar[str] = "give it another name"
    name: str


@dataclass(frozen=True, kw_only=True)
class NoTrialWorked(Diagnostic):
    """A search ended, and not one of its trials gave a result.

    Every combination was refused by the compiler, was over the budget, or gave a loss
    that is not finite; the table of results tells which and why.

    Fix: read the reasons in results.md; narrow the space to what compiles.
    """

    code: ClassVar[str] = "PEFT685"
    title: ClassVar[str] = "no trial gave a result"
    label: ClassVar[str] = "{count} trials; the last: {reason}"
    exit_code: ClassVar[int] = 5
    count: int
    reason: str
