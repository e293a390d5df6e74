"""Versions of packages, for what has to be made again elsewhere.

In: names of packages.  Out: their versions, without importing them.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The version of each package, or "not installed"."""
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
