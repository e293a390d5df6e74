"""`peftc doctor`: what is here, and what of it works."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from peftc.cli.guard import guarded
from peftc.cli.options import Json
from peftc.cli.output import console
from peftc.diagnostics.cli import NotUsable
from peftc.diagnostics.core import fail

if TYPE_CHECKING:
    from peftc.runtime.environment import Finding

SPEC = "lora(q, v, r=2) + adapter(ffn, d=2)"
"""What is tried: a method at linears and one at edges."""

STYLES = {"ok": "green", "absent": "yellow", "failed": "red"}


@guarded
def command(
    all_backends: Annotated[
        bool, typer.Option("--all", help="Also try the inductor backend (a minute).")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show versions, devices and compilers, and try what peftc does on a small model.

    Exit code 5 if something that peftc needs does not work.

    Example: peftc doctor --all
    """
    from peftc.api import compile
    from peftc.runtime.environment import BACKENDS, findings

    def tune(model: Any, backend: str) -> Any:
        return compile(model, SPEC, backend=backend)

    tried = tuple(b for b in BACKENDS if all_backends or b != "inductor")
    found = tuple(findings(tune, backends=tried))
    if as_json:
        record = {"version": 1, "findings": [asdict(one) for one in found]}
        print(json.dumps(record, indent=2))
    else:
        console().print(_table(found))
    failed = [f"{one.name}: {one.detail}" for one in found if one.state == "failed"]
    if failed and not as_json:
        raise fail(NotUsable(problems="; ".join(failed)))
    return NotUsable.exit_code if failed else 0


def _table(found: tuple[Finding, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "state", "detail"):
        table.add_column(column, overflow="fold")
    groups = [one.group for one in found]
    for number, one in enumerate(found):
        group = one.group if one.group not in groups[:number] else ""
        table.add_row(group, one.name, f"[{STYLES[one.state]}]{one.state}", one.detail)
    return table
