"""`peftc opt PLAN`: passes over the text of a plan, without its model."""

from __future__ import annotations

from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import PlanFile, PrintIR, read_plan, watcher
from peftc.driver import refine_plan
from peftc.passes import PLAN_PIPELINE
from peftc.plan.print import plan_text


@guarded
def command(
    plan: PlanFile,
    passes: Annotated[
        str,
        typer.Option(help="Names with commas, in order; all of them if not given."),
    ] = ",".join(PLAN_PIPELINE),
    print_ir: PrintIR = False,
) -> None:
    """Run passes over the text of a plan and print the plan they make.

    The model is not needed, so memory is estimated without the base's activations.

    Example: peftc plan spec.peft config.json --text | peftc opt -
    """
    names = tuple(name.strip() for name in passes.split(",") if name.strip())
    made = refine_plan(read_plan(plan), names, watcher(print_ir))
    print(plan_text(made), end="")
