"""`peftc fmt FILE...`: the canonical form of spec files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.output import say
from peftc.diagnostics.cli import NotFormatted
from peftc.diagnostics.core import fail
from peftc.driver import read_spec
from peftc.files import write_atomically
from peftc.syntax.parse import parse
from peftc.syntax.print import format_file


@guarded
def command(
    files: Annotated[list[Path], typer.Argument(help="The files to format.")],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if one would.")
    ] = False,
    stdout: Annotated[
        bool, typer.Option("--stdout", help="Print instead of writing.")
    ] = False,
) -> None:
    """Format spec files in place: canonical, idempotent, comments kept."""
    changed = [path for path in files if _format(path, check=check, stdout=stdout)]
    if check and changed:
        raise fail(NotFormatted(files=", ".join(map(str, changed))))


def _format(path: Path, *, check: bool, stdout: bool) -> bool:
    """Format one file; whether its text differs."""
    source = read_spec(path)
    text = format_file(parse(source))
    if stdout:
        print(text, end="")
    elif not check and text != source.text:
        write_atomically(path, text.encode())
        say(f"formatted {path}")
    return text != source.text
