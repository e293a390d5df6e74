"""The machine that figures are of.

In: nothing.  Out: plain data: processor, versions, how busy it was.
"""

from __future__ import annotations

import os
import platform
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from peftc.versions import versions

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = ("peftc", "torch", "transformers", "peft", "triton")
BUSY = 0.25
"""Cores that other processes used on average."""
SHORT = 0.2
"""Seconds in which the system's count of ticks says nothing."""


def machine() -> dict[str, Any]:
    """What does not change during a run."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "system": platform.system(),
        "versions": {"python": platform.python_version(), **versions(PACKAGES)},
    }


@contextmanager
def watched() -> Iterator[list[float]]:
    """Adds how many cores other processes used while the block ran, where the system
    counts that."""
    found: list[float] = []
    begun, busy, own = time.perf_counter(), _busy(), time.process_time()
    yield found
    seconds = time.perf_counter() - begun
    if busy is not None and (after := _busy()) is not None and seconds >= SHORT:
        others = after - busy - (time.process_time() - own)
        found.append(max(0.0, others / seconds))


def is_busy(others: list[float]) -> bool:
    """Whether others worked beside us while anything was timed."""
    return any(cores > BUSY for cores in others)


def _busy() -> float | None:
    """Seconds that all processors have worked since the system was started."""
    try:
        counts = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    except OSError:
        return None
    idle = (3, 4)  # waiting for a disk is idle, too
    ticks = sum(int(n) for i, n in enumerate(counts[:8]) if i not in idle)
    return ticks / os.sysconf("SC_CLK_TCK")


def _processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine()).strip()
