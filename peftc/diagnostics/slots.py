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
