"""An adapter in another format.

In: an adapter and the name of a format.  Out: the content of its folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.exchange import SeveralTypes, UnknownForm
from peftc.exchange.applied import given
from peftc.exchange.folder import write_folder
from peftc.exchange.peft import TUNERS, modules_to_save
from peftc.exchange.portable import portable
from peftc.exchange.tuner import task_of
from peftc.resolve.library import standard_library
from peftc.runtime.export import exported
from peftc.syntax.parse import parse
from peftc.syntax.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from peftc.exchange.applied import Applied, Given, Read
    from peftc.exchange.tuner import Tuner, Written
    from peftc.runtime.state import Adapter
    from peftc.syntax.ast import Method


def export(
    adapter: Adapter, folder: Path, to: str, read: Read | None = None, base: str = ""
) -> Path:
    """Write an adapter as a folder of format `to`; returns the path of its tensors.

    Args:
        read: gives the base's parameters by path, if the base is at hand.
        base: what the base is called, for those who load it by name.

    Raises:
        PeftcError: PEFT730, PEFT731 if the format has no such thing, PEFT734 if it
            takes the base, PEFT735 if there is no such format, or as writing does.
    """
    if to not in FORMS:
        known, hint = ", ".join(("peftc", *FORMS)), suggestion(to, FORMS)
        raise fail(UnknownForm(form=to, known=known, hint=hint))
    known_of = given(exported(adapter), known_methods(), read, base)
    made = FORMS[to](known_of)
    config = {
        "base_model_name_or_path": base or None,
        "task_type": task_of(known_of.plan.model.architecture),
        "inference_mode": True,
        **made.config,
    }
    return write_folder(folder, config, made.tensors)


def known_methods() -> Mapping[str, Method]:
    """The methods of the library, and those that only other formats have."""
    texts = (tuner.definitions for tuner in TUNERS)
    file = parse(Source("<exchange>", "\n".join(texts)))
    return standard_library().with_file(file).methods


def as_peft(found: Given) -> Written:
    """The folder of PEFT's type that has all methods of an adapter."""
    saved, rest = _apart(found.applied, modules_to_save.METHODS)
    if not rest:  # a type may have as a whole what others have beside their methods
        saved, rest = _apart(saved, (modules_to_save.METHODS[0],))
    tuners = {tuner.type: tuner for tuner in map(_tuner, rest or saved)}
    if len(tuners) > 1:
        raise fail(SeveralTypes(types=" and ".join(sorted(tuners))))
    (tuner,) = tuners.values()
    return modules_to_save.write(found, saved, tuner.write(found, rest))


def _apart(
    applied: Sequence[Applied], methods: Sequence[str]
) -> tuple[list[Applied], list[Applied]]:
    """Those that are among some methods, and the others."""
    those = [one for one in applied if one.known_as in methods]
    return those, [one for one in applied if one not in those]


def _tuner(applied: Applied) -> Tuner:
    for tuner in TUNERS:
        if applied.known_as in tuner.methods:
            return tuner
    raise applied.refuse("PEFT", "none of its types has this equation")


FORMS: Mapping[str, Callable[[Given], Written]] = {
    "peft": as_peft,
    "portable": portable,
}
"""What makes the content of each format."""
