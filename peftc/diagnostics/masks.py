"""Errors of masks and selections (330 to 339).

In: nothing.  Out: the diagnostic classes that controls raise which choose elements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class NoScores(Diagnostic):
    """Every score is zero, so a choice by them would be a choice by order.

    Gradient scores of a product in which another factor is zero are zero: of an
    adapter whose way up starts at zero, for instance, neither matrix has any.

    Fix: a start that is not zero (`adapter(..., init=...)` where a method has it), a
    score that looks at no gradient (`random`, `er`, `magnitude`), or masks that are
    set while training (`until=0.1`).
    """

    code: ClassVar[str] = "PEFT330"
    title: ClassVar[str] = "the scores tell nothing"
    label: ClassVar[str] = "all scores by `{score}` are zero"
    score: str


@dataclass(frozen=True, kw_only=True)
class NotInGroups(Diagnostic):
    """An axis cannot be divided into groups of the asked size.

    `of=4` keeps a share of every four consecutive inputs, so four has to divide their
    number.

    Fix: another group, or leave the site out.
    """

    code: ClassVar[str] = "PEFT331"
    title: ClassVar[str] = "groups do not divide an axis"
    label: ClassVar[str] = "`{site}` has {size} inputs, which are no groups of {group}"
    site: str
    size: int
    group: int


@dataclass(frozen=True, kw_only=True)
class NothingKept(Diagnostic):
    """So few elements are to be kept that there is none.

    The number that is kept is the share of all elements, rounded down.

    Fix: keep a larger share, or name more sites.
    """

    code: ClassVar[str] = "PEFT332"
    title: ClassVar[str] = "nothing would be trained"
    label: ClassVar[str] = "{keep:g} of {count:,} elements is none"
    keep: float
    count: int


@dataclass(frozen=True, kw_only=True)
class StoredInCodes(Diagnostic):
    """Gradients of the base are needed, and its weights are codes.

    Some selections let the base itself learn for a while, or look at gradients by its
    weights.  A weight that is stored in four or eight bits has none.

    Fix: leave the weight as it is where such a method stands, or choose by something
    else than gradients.
    """

    code: ClassVar[str] = "PEFT333"
    title: ClassVar[str] = "a stored weight has no gradient"
    label: ClassVar[str] = "`{weight}` is stored in codes"
    weight: str


@dataclass(frozen=True, kw_only=True)
class SizesFixed(Diagnostic):
    """The sizes of a plan should change, and the base is kept in codes.

    How many elements a site keeps is known only when data has been seen; the model then
    goes on with another plan.  To put that in, the base is needed as it was, and of
    weights in codes it is gone.

    Fix: leave the storage out, or take a method whose sizes are fixed.
    """

    code: ClassVar[str] = "PEFT334"
    title: ClassVar[str] = "the plan of a base in codes cannot change"
    label: ClassVar[str] = "{count} weights are stored in codes"
    help: ClassVar[str] = "leave `quantize` out, or the method whose sizes data decides"
    count: int
