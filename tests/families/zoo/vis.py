"""Models that read images or sound, alone or beside text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.families.zoo.case import Case

CASES: dict[str, Case] = {}
