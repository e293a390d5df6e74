"""`peftc plan SPEC MODEL`: what would be rewritten; no weights are read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Json, Model, PrintIR, Seed, Spec, watcher
from peftc.cli.output import console
from peftc.cli.summary import summary
from peftc.driver import check, make_plan, read_spec
from peftc.plan.print import plan_text
from peftc.plan.record import plan_record


@guarded
def command(
    spec: Spec,
    model: Model,
    seed: Seed = 0,
    text: Annotated[bool, typer.Option("--text", help="The whole plan.")] = False,
    as_json: Json = False,
    print_ir: PrintIR = False,
) -> None:
    """Show what would be rewritten: sites, shapes, counts, memory, merge class."""
    source = read_spec(spec)
    check(source)

    from peftc.sites.view import view_from_config

    plan = make_plan(
        source, view_from_config(model), seed=seed, watch=watcher(print_ir)
    )
    if as_json:
        print(json.dumps(plan_record(plan), indent=2))
    elif text:
        print(plan_text(plan), end="")
    else:
        console().print(summary(plan))
