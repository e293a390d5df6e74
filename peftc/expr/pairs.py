"""Pairs of layers to compare, and their weights: values of knobs of the type `pairs`.

In: the text of such a value, `"-1:-1*0.1, 2:4*0.5"`.  Out: for each pair the layer of
the student, that of the teacher, and a weight; 1 if none is written.  Numbers below
zero count from the last layer.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ENTRY = re.compile(r"(-?\d{1,5}) *: *(-?\d{1,5})(?: *\* *(\d{1,9}(?:\.\d{1,9})?))?")


class Pair(NamedTuple):
    """A layer of the student, one of the teacher, and the weight of their term."""

    student: int
    teacher: int
    weight: float


def canonical(text: str) -> str | None:
    """The text of pairs as plans have it, or None if it is none; it may be empty."""
    parts = text.split(",") if text.strip() else []
    found = [ENTRY.fullmatch(part.strip()) for part in parts]
    entries = [entry for entry in found if entry is not None]
    if len(entries) < len(parts):
        return None
    return ", ".join(
        f"{int(one[1])}:{int(one[2])}" + (f"*{one[3]}" if one[3] else "")
        for one in entries
    )


def pairs(text: str) -> tuple[Pair, ...]:
    """The pairs of canonical text."""
    found = (ENTRY.fullmatch(part) for part in text.split(", ") if part)
    return tuple(
        Pair(int(one[1]), int(one[2]), float(one[3] or 1)) for one in found if one
    )
