"""Generated modules on disk, named after their content.

In: the text of a module.  Out: its file, whole and right whatever other processes do.
Triton reads the source of a kernel from the file that it was defined in, so text alone
will not do.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = "PEFTC_CACHE"
"""The environment variable that names the folder."""


def folder() -> Path:
    """Where modules are kept."""
    named = os.environ.get(FOLDER)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named) if named else Path(base) / "peftc" / "kernels"


def stored(text: str, where: Path) -> Path:
    """The file with a module's text: written if it is not there, or is another text.

    The file gets its name when it is whole, so that no reader sees a part of it, and of
    several writers the last wins with the same text.
    """
    path = where / f"{digest(text)}.py"
    if is_whole(path):
        return path
    where.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(suffix=".tmp", dir=where)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(name, path)
    return path


def digest(text: str) -> str:
    """What names a text: its first letters are enough for any number of modules."""
    return "k" + hashlib.sha256(text.encode()).hexdigest()[:24]


def is_whole(path: Path) -> bool:
    """Whether a file is there and holds the text that it is named after."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return digest(text) == path.stem


@dataclass(frozen=True)
class Entry:
    """A module on disk: what it computes, its size, and whether it is whole."""

    path: Path
    title: str
    size: int
    whole: bool


def entries(where: Path) -> list[Entry]:
    """The modules of a folder by name; there need be none."""
    return [_entry(path) for path in sorted(where.glob("k*.py"))]


def _entry(path: Path) -> Entry:
    first = path.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
    return Entry(path, first.removeprefix("# "), path.stat().st_size, is_whole(path))


def clear(where: Path) -> int:
    """Remove the modules of a folder, and what writers left; how many modules it were.

    Who has imported one keeps it; who wants it again writes it.
    """
    found = entries(where)
    for path in (*(one.path for one in found), *where.glob("*.tmp")):
        path.unlink(missing_ok=True)
    return len(found)
