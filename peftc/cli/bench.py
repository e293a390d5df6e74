"""`peftc bench`: what methods cost, beside what others make of the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.options import Json, Seed, quiet_loading
from peftc.cli.output import check_replaceable, console, say

if TYPE_CHECKING:
    from peftc.bench import tables
    from peftc.bench.report import Report


@guarded
def command(
    suite: Annotated[
        str, typer.Option(help="quick, cpu or compile.", metavar="SUITE")
    ] = "quick",
    methods: Annotated[
        str, typer.Option(help="Only these of the suite, with commas between.")
    ] = "",
    models: Annotated[
        str,
        typer.Option("--workloads", help="Only rows on these, with commas between."),
    ] = "",
    peers: Annotated[str, typer.Option(help="Only these, with commas between.")] = "",
    rounds: Annotated[
        int, typer.Option(help="How often each is timed; 0: the suite's own.", min=0)
    ] = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The folder of the report.")
    ] = Path("peftc-bench"),
    seed: Seed = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    wall: Annotated[
        bool, typer.Option("--wall", help="Also wall time of two threads.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also what each operation costs.")
    ] = False,
    docs: Annotated[
        Path | None, typer.Option(help="A document that gets the tables.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time training steps of methods, in turns with what they are compared with.

    Peers start from the same values and have to give the same losses and gradients;
    the ratios are of times in the same round.  The folder holds bench.json with every
    round, bench.md and bench.png.  Ctrl-C keeps what was measured so far.

    Example: peftc bench --suite cpu --workloads C1 --methods lora --profile -o figures
    """
    from peftc.bench.cases import chosen
    from peftc.bench.folder import RECORD, write
    from peftc.bench.markdown import check_document
    from peftc.bench.peers import known
    from peftc.bench.run import Settings, bench
    from peftc.bench.suites import suite as named
    from peftc.tuning.interruption import terminable

    asked = named(suite).on(_names(models))
    asked = asked.of(chosen(_names(methods)), known(_names(peers)))
    check_replaceable(out, RECORD)
    if docs:
        check_document(docs)
    settings = Settings(suite, rounds, seed, device, wall, profile, _told())
    quiet_loading()
    with terminable():
        report = bench(asked, settings, lambda found: write(out, found), say)
    _show(report, out, docs, as_json=as_json)


def _show(report: Report, out: Path, docs: Path | None, *, as_json: bool) -> None:
    """Write the picture and the document, and print the tables."""
    from peftc.bench.folder import draw, record
    from peftc.bench.markdown import put_into
    from peftc.bench.tables import notes, tables
    from peftc.tuning.interruption import Interrupted

    if not draw(out, report):
        say("no picture: matplotlib is not installed, or there is nothing to draw")
    if as_json:
        print(json.dumps(record(report), indent=2))
    else:
        for table in tables(report):
            console().print(_rich(table))
    for note in notes(report):
        say(f"note: {note}")
    say(f"wrote {out}")
    if report.interrupted:
        raise Interrupted("interrupted; what was measured before is in the folder")
    if docs:
        put_into(docs, report)


def _told() -> str:
    """The command line, for the report."""
    return " ".join(("peftc", *sys.argv[1:]))


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _rich(table: tables.Table) -> Table:
    made = Table(title=table.title, box=None, pad_edge=False, title_justify="left")
    for number, name in enumerate(table.head):
        made.add_column(name, justify="right" if number else "left", overflow="fold")
    for row in table.rows:
        made.add_row(*row)
    return made
