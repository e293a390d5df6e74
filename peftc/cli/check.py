"""`peftc check SPEC`: syntax, names and types, without a model."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.output import say
from peftc.driver import check, read_spec


@guarded
def command(
    spec: Annotated[str, typer.Argument(help="A .peft file, or a spec as text.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check a spec: syntax, names and types; no model needed."""
    asked = check(read_spec(spec))
    if as_json:
        print(json.dumps({"version": 1, "diagnostics": []}, indent=2))
    applications = "application" if len(asked) == 1 else "applications"
    say(f"ok: {len(asked)} {applications}")
