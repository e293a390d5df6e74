"""The long explanation of every code: the docstrings of the diagnostics.

In: a code.  Out: its text, as `peftc explain CODE` prints it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from string import Formatter

from peftc.diagnostics.core import REGISTRY, suggestion

MODULES = (
    "syntax",
    "resolve",
    "definitions",
    "knobs",
    "equations",
    "attention",
    "choices",
    "training",
    "schedules",
    "masks",
    "merging",
    "stores",
    "wrappers",
    "networks",
    "plan",
    "capture",
    "stored",
    "rewrite",
    "runtime",
    "slots",
    "scale",
    "artefact",
    "exchange",
    "program",
    "tuning",
    "bench",
    "space",
    "packages",
    "cli",
    "internal",
)
"""Every module of this package that defines diagnostics."""


def all_codes() -> tuple[str, ...]:
    """Every code there is, in order."""
    for name in MODULES:
        path = f"peftc.diagnostics.{name}"
        if importlib.util.find_spec(path):
            importlib.import_module(path)
    return tuple(sorted(REGISTRY))


def explain(code: str) -> str:
    """The explanation of a code: cause, failing example, fix.

    `PEFT104`, `peft104` and `104` are the same.  Raises `LookupError`, with a
    suggestion as its message, for a code that does not exist.
    """
    wanted = code.upper() if code.upper().startswith("PEFT") else f"PEFT{code}"
    known = all_codes()
    if wanted not in known:
        raise LookupError(suggestion(wanted, known) or f"codes: {', '.join(known)}")
    kind = REGISTRY[wanted]
    return f"{wanted}: {_unfilled(kind.title)}\n\n{inspect.getdoc(kind)}\n"


def _unfilled(template: str) -> str:
    """A template with three dots for its fields."""
    parts = Formatter().parse(template)
    return "".join(text + ("..." if field else "") for text, field, _, _ in parts)
