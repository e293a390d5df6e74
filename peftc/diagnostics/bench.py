"""Errors of `peftc bench` (710 to 713).

In: nothing.  Out: the diagnostic classes that `peftc.bench` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class PeersDisagree(Diagnostic):
    """Two models that should compute the same do not, so they are not compared.

    All peers of a row start from the same values: what one of them trains is copied
    into the others.  Before anything is timed their losses have to be equal, and their
    gradients where their tensors correspond.  A peer that computes something else may
    be faster for that reason alone; so the row is not timed.  The others are, and the
    report is written.

    Example: a version of a peer that scales an update in another way.

    Fix: the version of the peer that constraints.txt names; if it is that one, this is
    a defect of peftc, and `peftc verify` on the spec tells more.
    """

    code: ClassVar[str] = "PEFT710"
    title: ClassVar[str] = "peers compute different things"
    label: ClassVar[str] = "{row}: the {what} of `{peer}` and `{reference}` differ"
    notes: ClassVar[tuple[str, ...]] = ("by {difference}, where {limit} is allowed",)
    help: ClassVar[str] = "this row was not timed; the others are in the report"
    exit_code: ClassVar[int] = 4
    row: str
    what: str
    peer: str
    reference: str
    difference: str
    limit: str


@dataclass(frozen=True, kw_only=True)
class UnknownChoice(Diagnostic):
    """An option of `peftc bench` names something that is not there.

    `--suite` takes quick, cpu or compile; `--workloads` names of the suite's models,
    `--methods` names of methods and `--peers` names of peers, separated by commas.

    Example: `peftc bench --methods lora,drora`
    """

    code: ClassVar[str] = "PEFT711"
    title: ClassVar[str] = "nothing of this name is compared"
    label: ClassVar[str] = "`{option}`: `{given}` is none of {known}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 2
    option: str
    given: str
    known: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NoSection(Diagnostic):
    """`--docs FILE` writes figures between two marks, and the file has them not.

    So that the text around figures stays as people wrote it, and the figures are as
    they were measured, the command replaces what is between
    `<!-- peftc bench: begin -->` and `<!-- peftc bench: end -->`, each a line of its
    own, once and in this order.

    Fix: put the two lines where the tables shall be.
    """

    code: ClassVar[str] = "PEFT712"
    title: ClassVar[str] = "no place for the figures"
    label: ClassVar[str] = "`{path}`: {problem}"
    help: ClassVar[str] = (
        "put `<!-- peftc bench: begin -->` and `<!-- peftc bench: end -->` into it"
    )
    exit_code: ClassVar[int] = 2
    path: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class NoDevice(Diagnostic):
    """`--device cuda` was asked for, and torch finds no such device.

    Fix: `--device cpu`, or a torch that is built for the device; `peftc doctor` shows
    what torch sees.
    """

    code: ClassVar[str] = "PEFT713"
    title: ClassVar[str] = "no such device"
    label: ClassVar[str] = "torch finds no `{device}` here"
    exit_code: ClassVar[int] = 5
    device: str
