"""Block sizes, warps and stages for each kind of kernel.

In: a `Launch`, how many tokens there are and the device's architecture.  Out: a
`Schedule`, from the table `schedules.txt`.  A line is

    90 row 16: 64 64 4 3

an architecture, a grid, the longest small axis (of SMALL); tokens and features of a
block, warps and stages.  `benchmarks/pick_schedules.py` writes it from what compiled
kernels use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, TypeAlias

from peftc.codegen.kernels.tiles import LEAST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.codegen.kernels.launches import Launch

Key: TypeAlias = "tuple[int, str, int]"


@dataclass(frozen=True)
class Schedule:
    """How a kernel is compiled: blocks of `bm` tokens by `bf` features."""

    bm: int
    bf: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.bm} {self.bf} {self.warps} {self.stages}"


INTERPRETED = Schedule(16, 16, 4, 1)
"""Small blocks, so that small tensors have several of them."""
FEW_TOKENS = 128
"""Fewer tokens have blocks of the smallest size."""
OF_FEW = ("flat", "split")
"""The grids of kernels that so few tokens have, but for gradients."""
SPLIT_TOKENS = 2048
"""Blocks of fewer tokens are too few programs for a device.  Both are powers of two, by
which those who check kernels tell numbers of tokens apart."""
SPLITS = 32
"""The most parts that features are split into, as each program reads all of a sum."""
PROGRAMS = 128
"""About as many as there are processors."""
LONG = 64
"""The tokens of a block, and half of the features of one, where parts are counted."""
SMALL = (0, 16, 64, 128)
"""The longest small axes that the table tells apart; others take the next longer."""


def schedule_for(launch: Launch, tokens: int, arch: int) -> Schedule:
    """The schedule of a kernel for some tokens on an architecture, 90 for sm_90.

    An architecture that is not in the table gets what the next older one has; one of 0
    is the interpreter.
    """
    if arch == 0:
        return INTERPRETED
    known = table()
    oldest = min(known)[0]
    own = max((key[0] for key in known if key[0] <= arch), default=oldest)
    found = known[own, launch.grid, min(s for s in SMALL if s >= launch.widest)]
    small = launch.grid in OF_FEW and tokens < FEW_TOKENS
    return of_few(found) if small else found


def of_few(schedule: Schedule) -> Schedule:
    """The schedule for fewer than FEW_TOKENS."""
    return replace(schedule, bm=LEAST, warps=4)


def few(tokens: int) -> bool:
    """Whether a row kernel's work is split along features."""
    return tokens < SPLIT_TOKENS


def splits(tokens: int, width: int) -> int:
    """Into how many parts features are split where they are summed.

    It depends on numbers of tokens and features alone, so that equal runs add in one
    order.
    """
    blocks, across = -(-tokens // LONG), -(-width // (2 * LONG))
    return max(1, min(SPLITS, across, PROGRAMS // blocks))


@cache
def table() -> Mapping[Key, Schedule]:
    """What the table says."""
    text = (files("peftc.codegen.kernels") / "schedules.txt").read_text("utf-8")
    lines = (line for line in text.splitlines() if line and line[0] != "#")
    return dict(map(_entry, lines))


def _entry(line: str) -> tuple[Key, Schedule]:
    before, after = line.split(":")
    arch, grid, widest = before.split()
    return (int(arch), grid, int(widest)), Schedule(*map(int, after.split()))
