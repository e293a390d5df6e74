"""Files and folders written whole or not at all.

In: a path and bytes or who writes them, or a folder that is finished.  Out: the file
with the new content or the folder with the new files; or what was there before,
whenever it ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STALE = 24 * 3600.0
"""Seconds after which what a writer has begun is taken for a dead one's."""


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the file, sync, rename over it, sync the folder.

    Raises:
        OSError: the old file is then untouched and nothing is left behind.
    """
    with replacing(path) as fresh:
        fresh.write_bytes(content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """An empty file of the same ending, which replaces `path` if the block ends well.

    Raises:
        OSError: as `write_atomically`.
    """
    remove_stale(path)
    handle, name = tempfile.mkstemp(
        prefix=beginning(path), suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    fresh = Path(name)
    try:
        yield fresh
        _sync(fresh)
        fresh.chmod(path.stat().st_mode if path.exists() else 0o644)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in the folder survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def beginning(path: Path) -> str:
    """How the names begin of what is being written in place of a path, beside it."""
    return f".{path.name}.peftc-writes-"


def remove_stale(path: Path) -> None:
    """Remove what writers of a file or folder began and were killed before ending."""
    start = beginning(path)
    for old in [one for one in path.parent.iterdir() if one.name.startswith(start)]:
        try:
            if time.time() - old.lstat().st_mtime > STALE:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        except FileNotFoundError:  # another process was quicker
            continue


def put_folder(fresh: Path, target: Path) -> None:
    """Give a finished folder its name, on the same disk.

    What had the name before has it until then, and is removed after.

    Raises:
        OSError: `target` is then as it was.
    """
    for path in fresh.rglob("*"):
        _sync(path)
    sync_folder(fresh)
    if target.exists():
        _exchange(fresh, target)
        sync_folder(target.parent)
        shutil.rmtree(fresh)
    else:
        fresh.replace(target)
    sync_folder(target.parent)


def _sync(path: Path) -> None:
    if path.is_dir():
        sync_folder(path)
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _exchange(one: Path, other: Path) -> None:
    """Let two paths change their names at once, so that both always exist."""
    names = os.fsencode(one), os.fsencode(other)
    swap = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if swap is not None:
        code = swap(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE)
        if code == 0:
            return
    # Where the system cannot: a gap between two renames, in which both still exist.
    aside = one.with_name(f"{one.name}.old")
    other.replace(aside)
    one.replace(other)
    aside.replace(one)


_HERE, _RENAME_EXCHANGE = -100, 2
"""Of Linux: AT_FDCWD, and the flag of renameat2."""
