"""`peftc eval MODEL DATA`: loss, accuracy, exact answers, with or without adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import AnyBase, Json, Model, RandomInit, quiet_loading
from peftc.cli.output import console, say
from peftc.cli.tables import measures_table
from peftc.cli.tuning import (
    AsBytes,
    Batch,
    Data,
    MaxLength,
    TaskName,
    Truncate,
    settings_of,
)


@guarded
def command(
    model: Model,
    data: Data,
    adapter: Annotated[
        Path | None, typer.Option(help="A folder with adapter.safetensors.")
    ] = None,
    batch: Batch = 8,
    max_length: MaxLength = 0,
    truncate: Truncate = False,
    task: TaskName = "",
    as_bytes: AsBytes = False,
    random_init: RandomInit = None,
    any_base: AnyBase = False,
    as_json: Json = False,
) -> None:
    """Measure a model, or an adapter on it, on data.

    How an adapter of `peftc train` reads (task, classes, bytes) is known from its
    folder.  An answer is exact if greedy generation would write it.

    Example: peftc eval MODEL test.jsonl --adapter run --json
    """
    settings = settings_of(locals())

    from peftc.tuning.adapted import evaluate
    from peftc.tuning.subject import Asked

    quiet_loading()
    asked = Asked(model, task, as_bytes, 0, random_init)
    found, chosen = evaluate(
        asked, data, settings, say, adapter=adapter, any_base=any_base
    )
    if as_json:
        record = {"version": 1, "task": chosen, **found.record()}
        print(json.dumps(record, indent=2))
    else:
        console().print(measures_table(found.record(), chosen))
