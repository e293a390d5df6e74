"""Errors of the values a user gives to knobs (215-229).

In: nothing.  Out: the diagnostic classes that `peftc.expr.knobs` and the elaboration at
a site raise; their spans point into the user's spec wherever it says something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnknownKnob(Diagnostic):
    """A method is given a knob that it does not have.

    `peftc explain METHOD` lists the knobs of a method.

    Wrong:

        lora(q, rank=8)

    Right:

        lora(q, r=8)
    """

    code: ClassVar[str] = "PEFT215"
    title: ClassVar[str] = "unknown knob"
    label: ClassVar[str] = "`{method}` has no knob `{name}`"
    help: ClassVar[str] = "{hint}"
    method: str
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class MissingKnob(Diagnostic):
    """A knob without a default is not given.

    Wrong:

        method m(d: size) on hidden { param D[d, hidden] = 0; h' = h + D.T(D(h)) }
        m(ffn)

    Right:

        method m(d: size) on hidden { param D[d, hidden] = 0; h' = h + D.T(D(h)) }
        m(ffn, d=64)
    """

    code: ClassVar[str] = "PEFT216"
    title: ClassVar[str] = "a knob is missing"
    label: ClassVar[str] = "`{method}` needs `{name}`, {meaning}"
    method: str
    name: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class KnobType(Diagnostic):
    """A knob is given a value of another type.

    Types are `size` (a whole number, 1 or more), `count` (0 or more), `fraction` (from
    0 to below 1, or `5%`), `scale` (above 0), `number`, `flag` (`true` or `false`) and
    `function` (`gelu`, `relu`, ...).

    Wrong:

        lora(q, r=2.5)

    Right:

        lora(q, r=2)
    """

    code: ClassVar[str] = "PEFT217"
    title: ClassVar[str] = "a value of the wrong type"
    label: ClassVar[str] = "`{name}` is {meaning}, this is {value}"
    help: ClassVar[str] = "{hint}"
    name: str
    meaning: str
    value: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class KnobRange(Diagnostic):
    """A knob is given a number outside of its range.

    Sizes are at least 1, counts at least 0, fractions at least 0 and below 1, scales
    above 0; all numbers are finite.

    Wrong:

        lora(q, r=0)

    Right:

        lora(q, r=8)
    """

    code: ClassVar[str] = "PEFT218"
    title: ClassVar[str] = "out of range"
    label: ClassVar[str] = "`{name}` is {meaning}; {value} is not"
    help: ClassVar[str] = "{hint}"
    name: str
    meaning: str
    value: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class KnobUnit(Diagnostic):
    """A number has a unit that its knob cannot have: only fractions take `%`.

    Wrong:

        lora(q, r=8%)

    Right:

        lora(q, r=8)
    """

    code: ClassVar[str] = "PEFT219"
    title: ClassVar[str] = "a unit that does not belong here"
    label: ClassVar[str] = "`{name}` is {meaning}, not a percentage"
    help: ClassVar[str] = "write `{name}={value}`"
    name: str
    meaning: str
    value: str


@dataclass(frozen=True, kw_only=True)
class KnobNotWhole(Diagnostic):
    """A size that is computed from the site does not come out whole there.

    `pfeiffer` makes its bottleneck `hidden / reduction`; at a site of width 100 a
    reduction of 16 would give 6.25.  Give the size itself, or numbers that divide.

    Wrong (at a width of 100):

        pfeiffer(ffn, reduction=16)

    Right:

        pfeiffer(ffn, reduction=20)
    """

    code: ClassVar[str] = "PEFT220"
    title: ClassVar[str] = "a size is not whole"
    label: ClassVar[str] = "`{name} = {formula}` is {value}{site}"
    help: ClassVar[str] = "{hint}"
    name: str
    formula: str
    value: str
    site: str = ""
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class KnobWithoutEffect(Diagnostic):
    """A knob is given whose only use is in the default of another that is given too.

    Wrong:

        pfeiffer(ffn, reduction=16, d=64)

    Right:

        pfeiffer(ffn, d=64)
    """

    code: ClassVar[str] = "PEFT221"
    title: ClassVar[str] = "a knob without effect"
    label: ClassVar[str] = "`{name}` only sets the default of {others}, given here too"
    help: ClassVar[str] = "give one of them"
    name: str
    others: str


@dataclass(frozen=True, kw_only=True)
class UnknownFunctionWord(Diagnostic):
    """A knob that is a function is given a word that names none.

    Wrong:

        adapter(ffn, act=gleu)

    Right:

        adapter(ffn, act=gelu)
    """

    code: ClassVar[str] = "PEFT222"
    title: ClassVar[str] = "unknown function"
    label: ClassVar[str] = "`{word}` is not a function of one number"
    help: ClassVar[str] = "{hint}"
    word: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class LibraryUnreadable(Diagnostic):
    """A package offers methods through the entry point `peftc.methods`, but they cannot
    be read.

    The entry point names a resource of the package as `package:file.peft`; that file
    must exist and be UTF-8.  Reinstall or remove the package.
    """

    code: ClassVar[str] = "PEFT223"
    title: ClassVar[str] = "methods of an installed package cannot be read"
    label: ClassVar[str] = "entry point `{name}` = `{value}`: {problem}"
    help: ClassVar[str] = "reinstall the package or remove it"
    name: str
    value: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class LibraryHoldsNoMethods(Diagnostic):
    """A file of a methods library holds something besides methods and specs.

    A library is definitions only: a `use`, a `let` or an expression to compile has no
    meaning in it.
    """

    code: ClassVar[str] = "PEFT224"
    title: ClassVar[str] = "a library holds definitions only"
    label: ClassVar[str] = "this is {what}"
    what: str
