"""Errors of building and reading plans (3xx).

In: nothing.  Out: the diagnostic classes that `peftc.plan` and plan passes raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class NotWholeAtSite(Diagnostic):
    """The size of a tensor is not a whole number at some site.

    Axes may be quotients such as `out/a1`; whether they are whole depends on the model.
    Sizes are never padded.  Choose a knob that divides, or let the method's default
    choose one.
    """

    code: ClassVar[str] = "PEFT301"
    title: ClassVar[str] = "a size does not divide"
    label: ClassVar[str] = "{tensor}: {size} is {value} at `{site}` ({numbers})"
    help: ClassVar[str] = "{hint}"
    tensor: str
    size: str
    value: str
    site: str
    numbers: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class TooLarge(Diagnostic):
    """A plan would add more than the base model can plausibly carry.

    The sizes are computed before anything is allocated.  The limit is four times the
    base's parameters plus 2^24, for all added tensors together.
    """

    code: ClassVar[str] = "PEFT302"
    title: ClassVar[str] = "the plan adds too much"
    label: ClassVar[str] = "{added:,} scalars would be added to a base of {base:,}"
    notes: ClassVar[tuple[str, ...]] = (
        "the largest is {largest}, asked for at {origin}",
    )
    help: ClassVar[str] = "choose smaller sizes"
    added: int
    base: int
    largest: str
    origin: str


@dataclass(frozen=True, kw_only=True)
class TiedWeight(Diagnostic):
    """A method is applied to a weight that is tied to another parameter.

    The embedding and the head of many models are one tensor.  Rewriting one reader of
    it would untie them without a word.
    """

    code: ClassVar[str] = "PEFT303"
    title: ClassVar[str] = "the weight is tied"
    label: ClassVar[str] = "`{site}` shares its weight with `{other}`"
    help: ClassVar[str] = (
        "untie the model first (`tie_word_embeddings=False`), or leave the site out"
    )
    site: str
    other: str


@dataclass(frozen=True, kw_only=True)
class NoTap(Diagnostic):
    """An equation reads `u` or `n`, and the model's graph does not show that value.

    `u` is the input of the sublayer, `n` the edge as the following norm would give it.
    At this site the dataflow did not lead to one, and peftc does not guess.
    """

    code: ClassVar[str] = "PEFT305"
    title: ClassVar[str] = "the equation reads a value that was not found"
    label: ClassVar[str] = "`{method}` reads `{name}`, which `{site}` does not have"
    method: str
    name: str
    site: str


@dataclass(frozen=True, kw_only=True)
class UnreadablePlan(Diagnostic):
    """A plan text does not follow the format.

    Plans are printed by `peftc plan --text`; one that was edited by hand or damaged is
    refused at the first line that does not fit.
    """

    code: ClassVar[str] = "PEFT306"
    title: ClassVar[str] = "cannot read this plan"
    label: ClassVar[str] = "{problem}"
    problem: str


@dataclass(frozen=True, kw_only=True)
class PositionsDoNotFit(Diagnostic):
    """Methods move the first token beyond the model's table of positions.

    Prefix tuning lets tokens begin at position p, as if the prefix came before them.
    In a model with learned absolute positions p and the text together must fit the
    table.

    Example: `prefix(k, v, p=600)` on a BERT with 512 positions.

    Fix: fewer rows, or leave the positions alone: `prefix(k, v, positions=keep)`.
    """

    code: ClassVar[str] = "PEFT320"
    title: ClassVar[str] = "no position is left for a token"
    label: ClassVar[str] = (
        "`{table}` has {rows} positions; tokens would start at {start}"
    )
    help: ClassVar[str] = "use fewer rows, or `positions=keep`"
    table: str
    rows: int
    start: int


@dataclass(frozen=True, kw_only=True)
class UnknownDtype(Diagnostic):
    """The dtype for new tensors is not one they can have.

    `dtype=` takes a name: `float32`, or `auto`, which is float32 for a base below
    float32 and else the base's.  Whole numbers cannot be trained.
    """

    code: ClassVar[str] = "PEFT310"
    title: ClassVar[str] = "unknown dtype"
    label: ClassVar[str] = "added tensors cannot be `{dtype}`"
    notes: ClassVar[tuple[str, ...]] = ("known are {known}",)
    help: ClassVar[str] = "{hint}"
    dtype: str
    known: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class BadStepSize(Diagnostic):
    """The training step whose memory is to be counted has no such size.

    `batch` and `tokens` are whole numbers, 1 or more.
    """

    code: ClassVar[str] = "PEFT311"
    title: ClassVar[str] = "no size of a training step"
    label: ClassVar[str] = "`{name}` is {size}, not a whole number from 1"
    name: str
    size: str


@dataclass(frozen=True, kw_only=True)
class PositionsNotMoved(Diagnostic):
    """Methods move the first token, and the model's positions cannot be moved.

    Prefix tuning lets tokens begin at position p.  That is done by reading a learned
    table of positions further on; rotations and biases by distance need nothing.  Where
    absolute positions are computed (waves of sines) there is no table to read.

    Example: `prefix(k, v)` on an M2M100.

    Fix: leave the positions alone: `prefix(k, v, positions=keep)`.
    """

    code: ClassVar[str] = "PEFT321"
    title: ClassVar[str] = "the model's positions cannot be moved"
    label: ClassVar[str] = "{what}: {why}"
    help: ClassVar[str] = "use `positions=keep`"
    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class PlacesDoNotFit(Diagnostic):
    """A method has places for another number of rows than it puts among the tokens.

    Places such as `"0:3, -1:3"` say how many rows stand before which token: here three
    before the first and three behind the last, six in all.

    Wrong:

        prompt(p=10, at="0:3, -1:3")

    Right:

        prompt(p=6, at="0:3, -1:3")
    """

    code: ClassVar[str] = "PEFT340"
    title: ClassVar[str] = "places do not hold the rows"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "give as many rows as there are places for, or one place"
    problem: str


@dataclass(frozen=True, kw_only=True)
class TooManyRows(Diagnostic):
    """Rows among the tokens take all positions that the model has.

    Inserted rows have positions as tokens do.  Where a model looks positions up in a
    table, rows and tokens together cannot be more than it has rows.

    Example: `prompt(p=512)` on a BERT of 512 positions.

    Fix: insert fewer rows.
    """

    code: ClassVar[str] = "PEFT342"
    title: ClassVar[str] = "no position is left for a token"
    label: ClassVar[str] = "{rows} rows, and `{table}` has {size} positions"
    rows: int
    table: str
    size: int
