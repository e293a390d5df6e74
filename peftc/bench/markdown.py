"""The report for people, as Markdown, and the part of a document that holds it.

In: a report, a document.  Out: text; the document with the figures between its marks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.bench.tables import notes, tables
from peftc.diagnostics.bench import NoSection
from peftc.diagnostics.core import fail
from peftc.files import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.bench.report import Report
    from peftc.bench.tables import Table

BEGIN, END = "<!-- peftc bench: begin -->", "<!-- peftc bench: end -->"


def markdown(report: Report, level: int = 2) -> str:
    """Where the figures are from, the tables, and what is missing."""
    parts = [_about(report)]
    for table in tables(report):
        parts += [f"{'#' * level} {table.title}", _table(table)]
    told = notes(report)
    if told:
        parts.append("\n".join(f"- {note}" for note in told))
    return "\n\n".join(parts) + "\n"


def _about(report: Report) -> str:
    machine = report.machine
    versions = ", ".join(f"{n} {v}" for n, v in machine["versions"].items())
    count = max((len(row.rounds) for row in report.rows), default=0)
    device = f", {machine['device']}" if machine["device"] else ""
    return (
        f"`{report.command}`: {machine['processor']}, {machine['cores']} cores{device},"
        f" {machine['system']}; {versions}. {report.clock}; {count} rounds in random"
        f" order; {report.seconds / 60:.0f} minutes in all."
    )


def _table(table: Table) -> str:
    marks = ("---", *("--:",) * (len(table.head) - 1))
    lines = (table.head, marks, *table.rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def check_document(path: Path) -> None:
    """Refuse a document that has no place for figures.

    Raises:
        PeftcError: PEFT712.
    """
    _split(path)


def put_into(path: Path, report: Report) -> None:
    """Replace what is between the marks of a document.

    Raises:
        PeftcError: PEFT712.
    """
    before, after = _split(path)
    figures = markdown(report, level=3)
    text = f"{before}{BEGIN}\n\n{figures}\n{END}{after}"
    write_atomically(path, text.encode())


def _split(path: Path) -> tuple[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise fail(NoSection(path=str(path), problem=str(error.strerror))) from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise fail(NoSection(path=str(path), problem="it has not both marks"))
    return before, after
