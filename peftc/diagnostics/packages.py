"""Errors of installed packages (633).

In: nothing.  Out: the diagnostic class of `peftc.sites.interfaces`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class UnsupportedVersion(Diagnostic):
    """An installed package is too old, or too new, for this version of peftc.

    peftc captures forwards through parts of torch that are not public and change from
    version to version.  Those it needs are looked up before anything else is done; one
    of them is missing.  Install the version that peftc was tested with.
    """

    code: ClassVar[str] = "PEFT633"
    title: ClassVar[str] = "this version of a package cannot be used"
    label: ClassVar[str] = "{package} {version}: {problem}"
    help: ClassVar[str] = "peftc was tested with {package} {tested}"
    exit_code: ClassVar[int] = 3
    package: str
    version: str
    problem: str
    tested: str
