"""`peftc search SPACE MODEL DATA -o DIR`: the best spec of a design space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Json, Model, RandomInit, Seed, quiet_loading
from peftc.cli.output import console, say
from peftc.cli.tables import trials_table
from peftc.cli.tuning import (
    AsBytes,
    Batch,
    Budget,
    Data,
    Epochs,
    Evaluated,
    HeldOut,
    Labels,
    MaxLength,
    Metric,
    Rate,
    Steps,
    TaskName,
    Trials,
    Truncate,
    Warmup,
    settings_of,
)
from peftc.driver import check_space, read_spec

Space: TypeAlias = Annotated[
    str, typer.Argument(metavar="SPACE", help="A .peft file, or text, with choices.")
]
Output: TypeAlias = Annotated[
    Path, typer.Option("--output", "-o", help="The folder of the search.")
]

STEPS = 50
"""Steps of a trial that is told neither steps nor epochs."""


@guarded
def command(
    spec: Space,
    model: Model,
    data: Data,
    output: Output,
    trials: Trials = 20,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the search in the folder.")
    ] = False,
    metric: Metric = "loss",
    budget: Budget = 0,
    steps: Steps = 0,
    epochs: Epochs = 0.0,
    batch: Batch = 8,
    lr: Rate = 1e-3,
    warmup: Warmup = 0.1,
    seed: Seed = 0,
    evaluate: Evaluated = "",
    held_out: HeldOut = 0.1,
    max_length: MaxLength = 0,
    truncate: Truncate = False,
    task: TaskName = "",
    as_bytes: AsBytes = False,
    labels: Labels = 0,
    random_init: RandomInit = None,
    as_json: Json = False,
) -> None:
    """Search a spec with choices for the one that learns best in a few steps.

    `one_of(4, 8)` stands for values, `one_of(lora(q), ia3(k))` for specs,
    `range(1, 64, log)` for numbers.  Combinations that the compiler refuses are trials
    without result.  The folder holds results.md, results.json, trials.png, best.peft.

    Example: peftc search 'lora(q, r=one_of(2, 8))' MODEL data.jsonl -o found
    """
    source = read_spec(spec)
    check_space(source)
    steps = steps or (0 if epochs else STEPS)
    settings = settings_of(locals())

    from peftc.tuning.interruption import terminable
    from peftc.tuning.job import Job
    from peftc.tuning.search import Aim, search
    from peftc.tuning.subject import Asked

    asked = Asked(model, task, as_bytes, labels, random_init)
    job, aim = Job(source, asked, data, settings, evaluate), Aim(trials, metric, budget)
    quiet_loading()
    with terminable():
        made = search(job, aim, output, say, resume=resume)
    if as_json:
        print(json.dumps(made, indent=2))
    else:
        console().print(trials_table(made))
    say(f"wrote {output}")
