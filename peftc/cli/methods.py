"""`peftc methods`: the standard library."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.output import console
from peftc.plan.catalog import catalog
from peftc.resolve.library import standard_library

COLUMNS = ("name", "family", "primitives", "merge", "paper", "about")
"""What the table shows; the rest (knobs, places) is in the JSON."""


@guarded
def command(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List the methods and specs of the standard library."""
    rows = [asdict(entry) for entry in catalog(standard_library())]
    if as_json:
        print(json.dumps({"version": 1, "methods": rows}, indent=2))
        return
    table = Table(*COLUMNS, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(row[column] for column in COLUMNS))
    console().print(table)
