"""The examples in the explanations of PEFT215 to 279 are what they say they are."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from textwrap import dedent

import pytest

from peftc.diagnostics import attention, choices, definitions, equations, knobs
from peftc.diagnostics.core import Diagnostic, PeftcError
from peftc.resolve.files import gather
from peftc.resolve.requests import requests
from peftc.syntax.source import Source

CLASSES = [
    found
    for module in (knobs, equations, definitions, attention, choices)
    for found in vars(module).values()
    if isinstance(found, type) and issubclass(found, Diagnostic) and found.code
]
HEADING = re.compile(r"^(Wrong|Right):$", re.MULTILINE)


def example(kind: type[Diagnostic], heading: str) -> str:
    """The text below a heading; none where an example needs a model."""
    parts = HEADING.split(inspect.cleandoc(kind.__doc__ or ""))
    found = dict(zip(parts[1::2], parts[2::2], strict=True)).get(heading, "")
    code = [line for line in found.splitlines() if line.startswith("    ") or not line]
    return dedent("\n".join(code)).strip()


WRONG = [c for c in CLASSES if example(c, "Wrong")]


def codes(text: str) -> set[str]:
    try:
        unit = gather(Source("<spec>", text), Path())
        if unit.main:
            requests(unit)
    except PeftcError as error:
        return {found.code for found in error.diagnostics}
    return set()


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.code)
def test_wrong(kind: type[Diagnostic]) -> None:
    assert codes(example(kind, "Wrong")) == {kind.code}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.code)
def test_right(kind: type[Diagnostic]) -> None:
    right = example(kind, "Right")
    assert right
    assert codes(right) == set()


def test_nearly_all_have_examples() -> None:
    """But for what no text shows: what a site is, and libraries of packages."""
    without = {c.code for c in CLASSES} - {c.code for c in WRONG}
    assert without == {"PEFT220", "PEFT223", "PEFT224", "PEFT276", "PEFT277"}
