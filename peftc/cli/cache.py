"""`peftc cache`: the generated kernels on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.options import Json
from peftc.cli.output import console, say
from peftc.rewrite.module_cache import clear, entries, folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.rewrite.module_cache import Entry

BROKEN = 4


@guarded
def command(
    action: Annotated[
        Literal["list", "clear", "verify"],
        typer.Argument(help="What to do with the modules of generated kernels."),
    ] = "list",
    as_json: Json = False,
) -> int:
    """List the modules of generated kernels, remove them, or see whether all are whole.

    They are in $PEFTC_CACHE, or else in ~/.cache/peftc/kernels, and are written again
    when they are needed.  `verify` exits with 4 if the content of one is not what its
    name says.

    Example: peftc cache verify
    """
    where = folder()
    if action == "clear":
        say(f"removed {clear(where)} modules from {where}")
        return 0
    found = entries(where)
    broken = [one for one in found if not one.whole]
    shown = broken if action == "verify" else found
    if as_json:
        print(json.dumps({"version": 1, "folder": str(where), "modules": _json(shown)}))
    else:
        console().print(_table(shown))
        say(f"{len(found)} modules in {where}, {len(broken)} of them broken")
    return BROKEN if action == "verify" and broken else 0


def _json(found: Sequence[Entry]) -> list[dict[str, str | int]]:
    return [
        {"name": e.path.name, "title": e.title, "bytes": e.size, "whole": e.whole}
        for e in found
    ]


def _table(found: Sequence[Entry]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("module", "KiB", "of"):
        table.add_column(head, no_wrap=True)
    for one in found:
        table.add_row(one.path.stem, f"{one.size / 1024:.1f}", one.title)
    return table
