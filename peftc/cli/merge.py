"""`peftc merge ADAPTER MODEL -o DIR`: a plain model with the adapter in its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Adapter, AnyBase, Model, RandomInit, load_model
from peftc.cli.output import check_replaceable, say, whole_folder


@guarded
def command(
    adapter: Adapter,
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write.")
    ],
    random_init: RandomInit = None,
    any_base: AnyBase = False,
) -> None:
    """Merge a saved adapter into its base and write a plain model folder."""
    check_replaceable(output, replaces="")

    from peftc.api import load

    tuned: Any = load(load_model(model, random_init), adapter, any_base=any_base)
    tuned.peftc.merge()
    with whole_folder(output, replaces="") as folder:
        tuned.save_pretrained(folder, merge=True)
    say(f"wrote {output}")
