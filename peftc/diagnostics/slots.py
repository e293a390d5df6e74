"""Errors of slots: several adapters in one model (650-659).

In: nothing.  Out: the diagnostic classes of `peftc.runtime.adapter_slots` and of what
runs several adapters at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnknownSlot(Diagnostic):
    """A slot was named that the model does not have.

    `model.peftc.slots.names` lists the slots; `slots.add(name)` makes a new one, and
    `slots.add(name, folder)` one with the adapter in a folder.
    """

    code: ClassVar[str] = "PEFT650"
    title: ClassVar[str] = "unknown slot"
    label: ClassVar[str] = "the model has no slot `{slot}`"
    notes: ClassVar[tuple[str, ...]] = ("its slots are {known}",)
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 2
    slot: str
    known: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class SlotTaken(Diagnostic):
    """A new slot was to have the name of one that is there.

    `slots.add` never replaces an adapter.  Choose another name, or `slots.remove` the
    old one first.
    """

    code: ClassVar[str] = "PEFT651"
    title: ClassVar[str] = "the slot is there already"
    label: ClassVar[str] = "the model has a slot `{slot}` already"
    help: ClassVar[str] = "choose another name, or call `slots.remove` first"
    exit_code: ClassVar[int] = 2
    slot: str


@dataclass(frozen=True, kw_only=True)
class OtherBatch(Diagnostic):
    """A batch has another number of samples than slots were named for its rows.

    `slots.rows(["a", "b"])` is for batches of two, or of a multiple of two, in which
    equal rows stand side by side, as `generate()` makes them for beams.
    """

    code: ClassVar[str] = "PEFT652"
    title: ClassVar[str] = "the rows are not those of the batch"
    label: ClassVar[str] = "{slots} rows were named, and the batch has {samples}"
    help: ClassVar[str] = "name one slot (or None, for the base) for each row"
    exit_code: ClassVar[int] = 2
    samples: int
    slots: int


@dataclass(frozen=True, kw_only=True)
class NotBySample(Diagnostic):
    """A method changes something that all samples of a batch share.

    Under `slots.rows([...])` each sample has an adapter of its own.  That is possible
    where a method computes a value of each token: at linears and at the outputs of
    sublayers.

    Fix: run the samples of each adapter by themselves, under `slots.using(name)`.
    """

    code: ClassVar[str] = "PEFT653"
    title: ClassVar[str] = "samples cannot have adapters of their own here"
    label: ClassVar[str] = "`{site}`: {why}"
    notes: ClassVar[tuple[str, ...]] = ("it comes from {origin}",)
    help: ClassVar[str] = "run each adapter's samples alone, with `slots.using(name)`"
    exit_code: ClassVar[int] = 3
    site: str
    why: str
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class NotByWeight(Diagnostic):
    """A weighted sum of adapters is not defined for what a method does here.

    `slots.combine(name, weights)` adds the effects of adapters: what each changes of a
    value, times its weight.  That is possible where a method gives a value in place of
    another: at linears, at the outputs of sublayers, at gains and offsets of norms.

    Fix: combine adapters of a spec without that method, or run one at a time.
    """

    code: ClassVar[str] = "PEFT654"
    title: ClassVar[str] = "adapters have no weighted sum here"
    label: ClassVar[str] = "`{site}`: {why}"
    notes: ClassVar[tuple[str, ...]] = ("it comes from {origin}",)
    help: ClassVar[str] = "leave that method out, or run one adapter at a time"
    exit_code: ClassVar[int] = 3
    site: str
    why: str
    origin: str = ""


@dataclass(frozen=True, kw_only=True)
class NotOneAdapter(Diagnostic):
    """A slot was used as an adapter of the model's plan, and it is none.

    A weighted sum or a stack has no tensors of its own: it cannot be saved, merged,
    exported or verified, nor be part of a batch with an adapter for each row.  Nor can
    an adapter that was made by another spec, whose tensors are not in the modules.

    Fix: name the slots that it is made of, or activate one of them first.
    """

    code: ClassVar[str] = "PEFT655"
    title: ClassVar[str] = "the slot is no adapter of the model's plan"
    label: ClassVar[str] = "slot `{slot}` {why}"
    help: ClassVar[str] = "use an adapter that the model's own spec made"
    exit_code: ClassVar[int] = 5
    slot: str
    why: str


@dataclass(frozen=True, kw_only=True)
class CannotStack(Diagnostic):
    """Adapters cannot run one after the other.

    In a stack, and in a slot with a plan of its own, all that a forward needs is given
    to it.  What is set on the model's modules when it is compiled (a side network, rows
    among the tokens, the forward of an encoder) is not.

    Fix: compile the model with one spec that has all methods, joined by `+`.
    """

    code: ClassVar[str] = "PEFT656"
    title: ClassVar[str] = "these adapters cannot be stacked"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "compile the model with one spec that has all methods"
    exit_code: ClassVar[int] = 3
    problem: str
