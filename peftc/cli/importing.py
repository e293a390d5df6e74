"""`peftc import FOLDER MODEL -o DIR`: an adapter of another tool, as one of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Model, Output, RandomInit, load_model
from peftc.cli.output import check_replaceable, say, whole_folder


@guarded
def command(
    folder: Annotated[Path, typer.Argument(help="A folder with adapter_config.json.")],
    model: Model,
    output: Output,
    random_init: RandomInit = None,
) -> None:
    """Import an adapter of Hugging Face PEFT or AdapterHub; its spec goes to stdout."""
    check_replaceable(output, replaces="")

    from peftc.driver import imported
    from peftc.runtime.state import write_adapter

    _, adapter = imported(load_model(model, random_init), folder)
    with whole_folder(output, replaces="") as fresh:
        write_adapter(fresh, adapter)
    print(adapter.spec, end="")
    say(f"wrote {output}")
