"""`peftc plan SPEC MODEL`: what would be rewritten; no weights are read."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Dtype, Json, Model, PrintIR, Seed, Spec, watcher
from peftc.cli.output import console
from peftc.cli.summary import summary
from peftc.codegen.joint_plans import joint_plans
from peftc.driver import Step, check, plan_model, read_spec
from peftc.expr.order import MACHINE
from peftc.passes.estimate_memory import BATCH
from peftc.plan.print import plan_text
from peftc.plan.record import plan_record


def _checked(machine: str) -> str:
    """The text of a machine's numbers, if they are ones."""
    try:
        MACHINE.changed(machine)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return machine


@guarded
def command(
    spec: Spec,
    model: Model,
    seed: Seed = 0,
    dtype: Dtype = "auto",
    batch: Annotated[
        int, typer.Option(help="Samples of the step whose memory is counted.", min=1)
    ] = BATCH,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens of each; 512 or fewer.", min=1)
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="The whole plan.")] = False,
    joint: Annotated[
        bool,
        typer.Option("--joint", help="Forward and backward of each kind of site."),
    ] = False,
    machine: Annotated[
        str,
        typer.Option(
            help="What `--joint` plans for instead: 'bandwidth=2e12 batch=4'.",
            callback=_checked,
        ),
    ] = "",
    as_json: Json = False,
    print_ir: PrintIR = False,
) -> None:
    """Show what would be rewritten: sites, shapes, counts, memory, merge class.

    Example: peftc plan 'lora(q, v, r=8)' config.json --batch 4 --tokens 1024
    """
    source = read_spec(spec)
    check(source)
    step, watch = Step(batch, tokens), watcher(print_ir)
    plan = plan_model(source, model, step, seed=seed, dtype=dtype, watch=watch)
    if as_json:
        print(json.dumps(plan_record(plan), indent=2))
    elif joint:
        print(joint_plans(plan, MACHINE.changed(machine)), end="")
    elif text:
        print(plan_text(plan), end="")
    else:
        console().print(summary(plan))
