"""Block sizes, warps and stages for each kind of kernel.

In: a `Launch`, how many tokens there are and the device's architecture.  Out: a
`Schedule`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftc.codegen.kernels.launches import Launch


@dataclass(frozen=True)
class Schedule:
    """How a kernel is compiled: blocks of `bm` tokens by `bf` features."""

    bm: int
    bf: int
    warps: int
    stages: int


INTERPRETED = Schedule(16, 16, 4, 1)
"""Small blocks, so that small tensors have several of them."""
FEW_TOKENS = 16
"""Up to so many tokens a block of the smallest size holds all of them."""


def schedule_for(launch: Launch, tokens: int, arch: int) -> Schedule:
    """The schedule of a kernel for some tokens on an architecture, 90 for sm_90.

    An architecture of 0 is the interpreter.
    """
    if arch == 0:
        return INTERPRETED
    bm = 16 if tokens <= FEW_TOKENS else 64
    return Schedule(bm, 64, 4, 3)
