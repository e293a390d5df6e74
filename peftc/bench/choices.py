"""Names on the command line that have to be known ones.

In: an option, a name, the known names.  Out: the error that says what there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.bench import UnknownChoice
from peftc.diagnostics.core import PeftcError, fail, suggestion

if TYPE_CHECKING:
    from collections.abc import Iterable


def unknown(option: str, given: str, known: Iterable[str]) -> PeftcError:
    """The error (PEFT711) for a name that is none of the known ones."""
    names = tuple(known)
    hint = suggestion(given, names)
    return fail(
        UnknownChoice(option=option, given=given, known=", ".join(names), hint=hint)
    )
