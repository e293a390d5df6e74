"""The summary of a plan as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from peftc.plan.summary import COLUMNS, rows, totals

if TYPE_CHECKING:
    from rich.console import RenderableType

    from peftc.plan.types import Plan


def summary(plan: Plan) -> RenderableType:
    """The table of sites, then totals."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        right = column == "trainable"
        table.add_column(column, overflow="fold", justify="right" if right else "left")
    for cells in rows(plan):
        table.add_row(*cells)
    return Group(table, Text(), *(Text(line) for line in totals(plan)))
