"""Packages that are installed on request.

In: the name of a package and what needs it.  Out: the module, imported only now.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import MissingExtra

EXTRAS = {
    "accelerate": "train",
    "matplotlib": "train",
    "optuna": "search",
    "peft": "bench",
}
"""The extra of peftc that installs a package; others are installed by their name."""


def is_there(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None


def require(package: str, what: str, module: str = "") -> Any:
    """Import a package, or the module of it that is named.

    Raises:
        PeftcError: PEFT671 if it is not installed.
    """
    if not is_there(package):
        extra = EXTRAS.get(package)
        install = f"'peftc[{extra}]'" if extra else package
        raise fail(MissingExtra(what=what, package=package, install=install))
    return importlib.import_module(module or package)
