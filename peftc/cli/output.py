"""Where commands write: the product to stdout, narration to stderr.

In: texts, tables and folders to be written.  Out: the terminal, and folders that appear
whole or not at all.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from rich.console import Console

from peftc.diagnostics.cli import CannotWrite
from peftc.diagnostics.core import fail
from peftc.files import beginning, put_folder, remove_stale

MARKER = "plan.txt"  # what a folder written by peftc holds


def colored(stream: TextIO) -> bool:
    """Whether a stream wants colours: a terminal, and NO_COLOR is not set."""
    return stream.isatty() and "NO_COLOR" not in os.environ


def say(text: str) -> None:
    """One line of narration."""
    print(text, file=sys.stderr, flush=True)


def console() -> Console:
    """A console for the product; wide enough for tables where there is no terminal."""
    width = None if sys.stdout.isatty() else 100
    return Console(file=sys.stdout, width=width, no_color=not colored(sys.stdout))


@contextmanager
def whole_folder(target: Path, replaces: str = MARKER) -> Iterator[Path]:
    """A new folder that replaces `target` only when the block ends well.

    An existing folder is replaced if it is empty, or holds the file `replaces`, which
    tells that peftc wrote it.

    Raises:
        PeftcError: PEFT660 if `target` is something else, or the disk refuses.
    """
    check_replaceable(target, replaces)
    fresh: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target)
        fresh = Path(tempfile.mkdtemp(prefix=beginning(target), dir=target.parent))
        yield fresh
        fresh.chmod(0o755)
        put_folder(fresh, target)
    except OSError as error:
        if fresh is not None and error.errno not in REFUSED:
            raise
        problem = f"`{target}`: {error.strerror or error}"
        raise fail(CannotWrite(problem=problem)) from error
    finally:
        if fresh is not None:
            shutil.rmtree(fresh, ignore_errors=True)


REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES}
"""What a disk says that does not take what is written."""


def check_replaceable(target: Path, replaces: str = MARKER) -> None:
    """Refuse to write over what peftc did not write.

    Raises:
        PeftcError: PEFT660.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise fail(CannotWrite(problem=f"`{target}` is a file"))
    ours = replaces and (target / replaces).is_file()
    if any(target.iterdir()) and not ours:
        problem = f"`{target}` holds files that peftc did not write"
        raise fail(CannotWrite(problem=problem))
