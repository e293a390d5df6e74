"""Errors of weights that are stored otherwise (285 to 289, 345 to 348).

In: nothing.  Out: the diagnostic classes that `expr.stores`, `resolve` and `plan`
raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class BadStore(Diagnostic):
    """A `store` statement stands where it cannot mean anything.

    It says in which format the frozen weight `W` of a linear is kept.  Every other
    method at the site then reads the decoded weight, so a clause with `store` has no
    equation, no tensors of its own and no second `store`.

    Wrong:

        method m() on linear {
          param s[out] = 1
          store W ~ int8(base)
          y' = s * y
        }

    Right:

        method m() on linear { store W ~ int8(base) }
        method scale() on linear { param s[out] = 1; y' = s * y }
        m(q) + scale(q)
    """

    code: ClassVar[str] = "PEFT285"
    title: ClassVar[str] = "nothing that can be stored like this"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "`on linear {{ store W ~ int8(base) }}` is a whole clause"
    problem: str


@dataclass(frozen=True, kw_only=True)
class UnknownFormat(Diagnostic):
    """A `store` statement names a format that there is not.

    `docs/language.md` lists the formats with their options.

    Wrong:

        method m() on linear { store W ~ nf5(64, true, base) }

    Right:

        method m() on linear { store W ~ nf4(64, true, base) }
    """

    code: ClassVar[str] = "PEFT286"
    title: ClassVar[str] = "unknown storage format"
    label: ClassVar[str] = "there is no format `{name}`"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str


@dataclass(frozen=True, kw_only=True)
class StorageOptions(Diagnostic):
    """The options of a storage format are too many, too few, or of another type.

    They are given in order: numbers, flags and words, or knobs of these types.

    Wrong:

        method m() on linear { store W ~ nf4(0, true) }

    Right:

        method m() on linear { store W ~ nf4(64, true, base) }
    """

    code: ClassVar[str] = "PEFT287"
    title: ClassVar[str] = "wrong options of a storage format"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "its form is `{form}`"
    problem: str
    form: str


@dataclass(frozen=True, kw_only=True)
class KnobIdle(Diagnostic):
    """A knob is given that nothing reads in the clauses that are used.

    A method has several clauses, and a site takes the one that fits it.  A knob that
    only other clauses read would change nothing, so it is refused.

    Wrong:

        quantize(linear, kind=int8, block=32)

    Right:

        quantize(linear, kind=int8)
    """

    code: ClassVar[str] = "PEFT288"
    title: ClassVar[str] = "a knob without effect here"
    label: ClassVar[str] = "no clause of `{method}` that is used reads `{name}`"
    help: ClassVar[str] = "leave it out{hint}"
    method: str
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class StorageWrapped(Diagnostic):
    """A wrapper is put around a method that says how a weight is stored.

    A wrapper reads what a method makes of the values of a site; a storage makes
    nothing of them.  It applies to the whole weight, for all that read it.

    Wrong:

        gate(quantize(q) + lora(q))

    Right:

        quantize(q) + gate(lora(q))
    """

    code: ClassVar[str] = "PEFT289"
    title: ClassVar[str] = "a storage is not wrapped"
    label: ClassVar[str] = "`{name}` says how a weight is stored"
    help: ClassVar[str] = "put it beside the wrapper: `{name}(...) + {wrapper}(...)`"
    name: str
    wrapper: str


@dataclass(frozen=True, kw_only=True)
class RowsNotStored(Diagnostic):
    """Only some rows of a fused weight are asked to be stored otherwise.

    A weight is stored as a whole: blocks run over its rows, and files of quantised
    models hold whole weights.  Name all parts of it, or its path.

    Wrong, where q, k and v are rows of one weight:

        quantize(q)

    Right:

        quantize(q, k, v)
    """

    code: ClassVar[str] = "PEFT345"
    title: ClassVar[str] = "a part of a weight cannot be stored by itself"
    label: ClassVar[str] = "`{site}` is {count} of the {total} rows of `{weight}`"
    help: ClassVar[str] = "its parts are {parts}: name all of them"
    site: str
    weight: str
    count: int
    total: int
    parts: str


@dataclass(frozen=True, kw_only=True)
class StoredTwice(Diagnostic):
    """Two storages are asked for one weight.

    A weight is kept in one format; there is no order in which two could apply.

    Wrong:

        quantize(linear) + quantize(q, kind=int8)

    Right:

        quantize(k, v, o, up, gate, down) + quantize(q, kind=int8)
    """

    code: ClassVar[str] = "PEFT346"
    title: ClassVar[str] = "a weight is stored twice"
    label: ClassVar[str] = "`{weight}` is stored already, by {origin}"
    help: ClassVar[str] = "name disjoint sites"
    weight: str
    origin: str


@dataclass(frozen=True, kw_only=True)
class NeverStored(Diagnostic):
    """A weight is asked to be stored otherwise that must keep its values.

    A router decides between experts by small differences, so it stays as it is, as do
    norms.  A weight that holds whole numbers is stored in codes already.

    Wrong:

        quantize(router)

    Right:

        quantize(linear)
    """

    code: ClassVar[str] = "PEFT347"
    title: ClassVar[str] = "this weight stays as it is"
    label: ClassVar[str] = "`{site}`: {problem}"
    help: ClassVar[str] = "`linear` means every linear that can be stored otherwise"
    site: str
    problem: str
