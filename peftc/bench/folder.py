"""The files of a report.

In: a report and a folder.  Out: `bench.json`, `bench.md` and, where matplotlib is
installed, `bench.png`; each whole, and written anew after each row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftc.bench.markdown import markdown
from peftc.bench.plot import plot
from peftc.bench.targets import verdicts
from peftc.files import write_atomically
from peftc.tuning.folder import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.bench.report import Report

RECORD, TEXT, PICTURE = "bench.json", "bench.md", "bench.png"


def record(report: Report) -> dict[str, Any]:
    """The report as plain data, with what became of the targets."""
    judged = [one.record() for one in verdicts(report)]
    return {**report.record(), "targets": judged}


def write(folder: Path, report: Report) -> None:
    """Write what is known so far."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RECORD, record(report))
    write_atomically(folder / TEXT, f"# peftc bench\n\n{markdown(report)}".encode())


def draw(folder: Path, report: Report) -> bool:
    """Write the picture; whether there is one."""
    return plot(folder / PICTURE, report)
