"""The error that is peftc's own fault (9xx).

In: nothing.  Out: the diagnostic a crash becomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class InternalError(Diagnostic):
    """Something in peftc broke: never the fault of the spec or the model.

    A folder was written that holds what is needed to see it happen again: the spec, the
    plan before the pass that failed, the pipeline, the versions and the traceback.
    Please report it with that folder; it holds no weights.
    """

    code: ClassVar[str] = "PEFT901"
    title: ClassVar[str] = "internal error"
    label: ClassVar[str] = "{error}"
    notes: ClassVar[tuple[str, ...]] = ("while: {stage}",)
    help: ClassVar[str] = "a reproducer is in {folder}"
    exit_code: ClassVar[int] = 70
    error: str
    stage: str
    folder: str
