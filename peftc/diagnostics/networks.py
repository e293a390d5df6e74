"""Errors of side networks: planning them (350 to 354), making them (455 to 459), and
running beside a backbone (645 to 649).

In: nothing.  Out: the diagnostic classes that plans, `peftc.networks` and
`peftc.runtime.side` raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class NotDivided(Diagnostic):
    """A size of the model is not a multiple of what a side network divides it by.

    A narrow transformer of the backbone's own class has its width, its inner width and
    the size of its heads divided, and as many heads.  Nothing is padded or rounded: a
    model of width 768 with heads of 64 can be divided by 2, 4 and 8, but not by 12,
    since 64 / 12 is no whole number.

    Choose a divisor of all the sizes that are named.
    """

    code: ClassVar[str] = "PEFT350"
    title: ClassVar[str] = "a size of the model does not divide"
    label: ClassVar[str] = "`{name}` is {size}, which is no multiple of {reduction}"
    help: ClassVar[str] = "choose a divisor of {size}"
    name: str
    size: int
    reduction: int


@dataclass(frozen=True, kw_only=True)
class OddRotation(Diagnostic):
    """Heads of a narrow model would rotate an odd number of values.

    A rotation turns values in pairs, so the rotated part of a head must stay even:
    heads of 16 divided by 16 would have one value and nothing to turn it with.

    Choose a smaller reduction.
    """

    code: ClassVar[str] = "PEFT351"
    title: ClassVar[str] = "an odd number of values cannot be rotated"
    label: ClassVar[str] = (
        "heads divided by {reduction} would rotate {size} values, which is no pair"
    )
    help: ClassVar[str] = "choose a smaller reduction"
    size: int
    reduction: int


@dataclass(frozen=True, kw_only=True)
class InsideBackbone(Diagnostic):
    """A method inside the backbone would never be trained beside a side network.

    A side network reads what the layers compute without its history, and gives what
    the head reads: no gradient enters the backbone, which is what saves the memory.  A
    method at one of its sites would keep its first values for good, without a word.

    Methods at the head are trained, and what trains nothing (storage of weights) is
    fine.  To train inside the backbone, leave the side network out.
    """

    code: ClassVar[str] = "PEFT352"
    title: ClassVar[str] = "no gradient reaches this site"
    label: ClassVar[str] = (
        "`{method}` at `{site}` lies in the backbone, which the side network of"
        " `{side}` never sends a gradient into"
    )
    help: ClassVar[str] = "apply it to `head`, or leave one of the two out"
    method: str
    site: str
    side: str


@dataclass(frozen=True, kw_only=True)
class SideTwice(Diagnostic):
    """A model gets two side networks.

    Each would give the head something of its own to read in place of what the backbone
    gives, and one of them would have no effect.

    Keep one of them; `@ layers(...)` says which layers it reads.
    """

    code: ClassVar[str] = "PEFT353"
    title: ClassVar[str] = "two side networks"
    label: ClassVar[str] = "`{first}` already gives the head what it reads"
    help: ClassVar[str] = "keep one of them"
    first: str


@dataclass(frozen=True, kw_only=True)
class NoSideNetwork(Diagnostic):
    """A side network cannot be made for this model.

    It is made from the backbone's own class and configuration, which must tell its
    widths, take embeddings in place of tokens, and have its layers in one row.  So far
    that holds of decoders and of encoders; models with both an encoder and a decoder
    have none yet.

    The reason says what is missing.  Methods with equations (`lora`, `adapter`) need
    none of this.
    """

    code: ClassVar[str] = "PEFT455"
    title: ClassVar[str] = "no side network for this model"
    label: ClassVar[str] = "{model}: {reason}"
    model: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class UnknownNetwork(Diagnostic):
    """A `network` statement names nothing that peftc or a package offers.

    `network transformer(...)` is peftc's own.  An installed package adds others under
    the entry point `peftc.networks`.

    Correct the name, or install the package that has it.
    """

    code: ClassVar[str] = "PEFT456"
    title: ClassVar[str] = "unknown network"
    label: ClassVar[str] = "there is no network `{name}`"
    help: ClassVar[str] = "{hint}"
    name: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NetworkPlace(Diagnostic):
    """A `network` statement and its clause do not belong together.

    A network stands beside the backbone: it is what a clause `on side { ... }` is for,
    which has one of them and no tensors of its own.  At other places equations say what
    is computed.

    Write `method m(...) on side { network transformer(...) }`.
    """

    code: ClassVar[str] = "PEFT457"
    title: ClassVar[str] = "a network out of place"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class IdleOption(Diagnostic):
    """An option of a network would have no effect.

    A temperature of gates means nothing without gates, and a gate between the network
    and the backbone nothing where the network is added to it.

    Leave the option out.
    """

    code: ClassVar[str] = "PEFT354"
    title: ClassVar[str] = "an option without effect"
    label: ClassVar[str] = "`{name}` does nothing here: {why}"
    name: str
    why: str
