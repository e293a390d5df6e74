"""Tables of measures.

In: plain data of a report.  Out: rich tables.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = ("loss", "perplexity", "accuracy", "exact")


def held_out_table(held_out: Mapping[str, Any]) -> Table:
    """The base beside what became of it."""
    samples = held_out["base"]["samples"]
    return _table(f"{samples} held-out samples", held_out)


def measures_table(measures: Mapping[str, Any], name: str) -> Table:
    """One measurement."""
    return _table(f"{measures['samples']} samples", {name: measures})


def _table(title: str, columns: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table(title, *columns, box=None, pad_edge=False, header_style="bold")
    for name in SHOWN:
        numbers = [column[name] for column in columns.values()]
        if None not in numbers:
            table.add_row(name, *(f"{number:.4f}" for number in numbers))
    return table


def trials_table(result: Mapping[str, Any]) -> Table:
    """The trials of a search, in their order."""
    metric = result["metric"]
    head = ("trial", "state", metric, "trainable", "spec or reason")
    table = Table(*head, box=None, pad_edge=False, header_style="bold")
    for trial in result["trials"]:
        best = trial["number"] == result["best"]["number"]
        value, size = trial["value"], trial["trainable"]
        table.add_row(
            str(trial["number"]),
            trial["state"],
            "" if value is None else f"{value:.4f}",
            "" if size is None else f"{size:,}",
            trial["reason"] or " ".join(trial["spec"].split()),
            style="green" if best else "",
        )
    return table
