"""Where rows stand among the tokens of a stack: values of knobs of the type `places`.

In: the text of such a value.  Out: `auto`, or one or several places, each the number of
the token that rows stand before and how many rows stand there.  Numbers below zero
count from the end: rows before -1 stand behind the last token.
"""

from __future__ import annotations

import re
from typing import TypeAlias

AUTO = "auto"

ENTRY = re.compile(r"(-?\d{1,9})(?::([1-9]\d{0,8}))?")

Places: TypeAlias = "tuple[tuple[int, int], ...]"
"""Before which token, and how many rows, in the order of the rows."""


def canonical(text: str) -> str | None:
    """The text of places as plans have it, or None if it is none."""
    if text.strip() == AUTO:
        return AUTO
    found = [ENTRY.fullmatch(part.strip()) for part in text.split(",")]
    entries = [entry for entry in found if entry is not None]
    told = all(entry[2] for entry in entries) or len(found) == 1
    if len(entries) < len(found) or not told:
        return None
    return ", ".join(entry[0] for entry in entries)


def places(text: str, rows: int, auto: int) -> Places:
    """The places of canonical text for that many rows.

    Args:
        auto: before which token rows stand where the text is `auto`.

    Raises:
        ValueError: if the text has places for another number of rows.
    """
    if text == AUTO:
        return ((auto, rows),)
    entries = [part.partition(":") for part in text.split(", ")]
    found = tuple((int(at), int(count or rows)) for at, _, count in entries)
    if sum(count for _, count in found) != rows:
        raise ValueError(f"it has places for {sum(count for _, count in found)} rows")
    return found
