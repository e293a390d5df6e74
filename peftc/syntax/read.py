"""From bytes to a source: what is checked of a file before it is a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.syntax import NotText, TooLarge
from peftc.syntax.limits import MAX_CHARACTERS
from peftc.syntax.source import Source, Span

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 4 * MAX_CHARACTERS  # no character takes more in UTF-8


def read_source(path: Path, name: str = "") -> Source:
    """Read a `.peft` file, at most `MAX_BYTES` of it.

    Raises `PeftcError` if it is not text, and `OSError` if it cannot be read: what that
    means is known where the path came from.
    """
    with path.open("rb") as file:
        return decode(file.read(MAX_BYTES + 1), name or str(path))


def decode(data: bytes, name: str) -> Source:
    """The source in a file's bytes: UTF-8, with or without a mark at its beginning."""
    nowhere = Span(Source(name, ""), 0, 0)
    if len(data) > MAX_BYTES:
        raise fail(TooLarge(span=nowhere, limit=MAX_BYTES, unit="bytes"))
    try:
        return Source(name, data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        place = f"byte {error.start} of the file"
        problem = "not UTF-8"
        raise fail(NotText(span=nowhere, problem=problem, place=place)) from None
