"""`peftc train SPEC MODEL DATA -o DIR`: fine-tune, with checkpoints and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Json, Model, RandomInit, Spec, quiet_loading
from peftc.cli.output import console, say
from peftc.cli.tables import held_out_table
from peftc.cli.tuning import (
    AsBytes,
    Batch,
    Data,
    Epochs,
    Evaluated,
    HeldOut,
    Labels,
    MaxLength,
    Rate,
    Steps,
    TaskName,
    Truncate,
    Warmup,
    settings_of,
)
from peftc.driver import check, read_spec


@guarded
def command(
    spec: Spec,
    model: Model,
    data: Data,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder of the run.")
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder.")
    ] = False,
    steps: Steps = 0,
    epochs: Epochs = 0.0,
    batch: Batch = 8,
    lr: Rate = 1e-3,
    warmup: Warmup = 0.1,
    seed: Annotated[
        int, typer.Option(help="Of initial values, order and dropout.", min=0)
    ] = 0,
    evaluate: Evaluated = "",
    held_out: HeldOut = 0.1,
    max_length: MaxLength = 0,
    truncate: Truncate = False,
    save_every: Annotated[
        int, typer.Option(help="Steps between checkpoints; 0: ten in all.", min=0)
    ] = 0,
    task: TaskName = "",
    as_bytes: AsBytes = False,
    labels: Labels = 0,
    random_init: RandomInit = None,
    as_json: Json = False,
) -> None:
    """Train what a spec adds to a model, and report on it.

    DATA is a JSONL file whose records are `text`, `prompt` with `completion` or
    `target`, or `text` with `label`; a text file; or the name of a data set.

    Ctrl-C and SIGTERM end the step, keep a whole checkpoint and exit with code 130;
    `--resume` then goes on to the same bits as a run that was not interrupted.

    Example: peftc train 'lora(q, v)' MODEL data.jsonl -o run --steps 500 --lr 5e-3
    """
    source = read_spec(spec)
    check(source)

    from peftc.tuning.interruption import terminable
    from peftc.tuning.job import Job, train
    from peftc.tuning.subject import Asked

    settings = settings_of(locals())
    asked = Asked(model, task, as_bytes, labels, random_init)
    job = Job(source, asked, data, settings, evaluate)
    quiet_loading()
    with terminable():
        report = train(job, output, say, resume=resume)
    if as_json:
        print(json.dumps(report, indent=2))
    elif report["held_out"]:
        console().print(held_out_table(report["held_out"]))
    say(f"wrote {output}")
