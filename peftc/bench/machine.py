"""The machine that figures are of.

In: nothing.  Out: plain data: processor, versions, how busy it was.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("peftc", "torch", "transformers", "peft", "triton")
BUSY = 0.5
"""Processes that ran beside ours, on average over a minute."""


def machine() -> dict[str, Any]:
    """What does not change during a run."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "system": platform.system(),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def load() -> float:
    """Processes that wanted to run in the last minute; 0 where nobody counts them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def is_busy(loads: list[float]) -> bool:
    """Whether others worked beside us: at the start nothing of ours ran, later one."""
    first, *later = loads or [0.0]
    return first > BUSY or any(one > 1 + BUSY for one in later)


def _processor() -> str:
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine()).strip()


def _versions() -> dict[str, str]:
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
