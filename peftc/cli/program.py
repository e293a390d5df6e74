"""`peftc program ADAPTER MODEL -o DIR`: the tuned model as a program of torch alone."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Adapter, AnyBase, Model, RandomInit, load_model
from peftc.cli.output import check_replaceable, say, whole_folder


class Kind(str, Enum):
    """What is written."""

    pt2 = "pt2"
    aoti = "aoti"


@guarded
def command(
    adapter: Adapter,
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write.")
    ],
    to: Annotated[
        Kind, typer.Option(help="pt2: as torch.export has it; aoti: machine code.")
    ] = Kind.pt2,
    random_init: RandomInit = None,
    any_base: AnyBase = False,
) -> None:
    """Write a model with its adapter as a program that needs torch alone.

    It takes any number of samples and tokens, and is called with the arguments of the
    forward by name, without a cache.
    """
    check_replaceable(output, replaces="")

    from peftc.api import load

    tuned: Any = load(load_model(model, random_init), adapter, any_base=any_base)
    with whole_folder(output, replaces="") as folder:
        file = tuned.peftc.export(folder, to=to.value)
    say(f"wrote {output / file.name}")
