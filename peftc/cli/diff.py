"""`peftc diff PLAN PLAN`: what two plans do differently."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.options import Json, PlanFile, read_plan
from peftc.cli.output import console
from peftc.plan.diff import difference
from peftc.plan.summary import layers

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peftc.plan.diff import Change

STYLES = {"added": "green", "removed": "red", "changed": "yellow"}


@guarded
def command(old: PlanFile, new: PlanFile, as_json: Json = False) -> int:
    """Show what differs between two plans; exit code 1 if anything does.

    Sites, methods, knobs, tensors, merge classes, counts and memory; equal changes of
    several layers are one line.

    Example: peftc diff runs/one runs/two
    """
    changes = difference(read_plan(old), read_plan(new))
    if as_json:
        record = {"version": 1, "changes": [asdict(change) for change in changes]}
        print(json.dumps(record, indent=2))
    elif changes:
        console().print(_table(changes))
    return 1 if changes else 0


def _table(changes: Iterable[Change]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "site", "layers", "what", "old", "new"):
        table.add_column(column, overflow="fold")
    groups: dict[tuple[str, ...], list[int]] = {}
    for one in changes:
        row = (one.kind, one.site, one.what, one.old, one.new)
        numbers = groups.setdefault(row, [])
        numbers += [] if one.layer is None else [one.layer]
    for (kind, site, *rest), numbers in groups.items():
        table.add_row(kind, site, layers(numbers), *rest, style=STYLES[kind])
    return table
