"""`peftc export ADAPTER -o DIR`: the adapter to give away, in our format or another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Adapter, load_model
from peftc.cli.output import check_replaceable, say, whole_folder


@guarded
def command(
    adapter: Adapter,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write.")
    ],
    to: Annotated[
        str, typer.Option(help="The format: peftc, peft (Hugging Face), portable.")
    ] = "peftc",
    model: Annotated[
        str, typer.Option(help="The base, where a format holds values of it.")
    ] = "",
) -> None:
    """Write an adapter to give away; mostly no model is needed.

    What methods compute from their own tensors is computed, where the result is
    smaller: the rows of a prefix that was trained through a hidden layer.  `portable`
    is PEFT's format with plain low-rank products only, for servers and converters.
    """
    check_replaceable(output, replaces="")

    from peftc.runtime.export import exported
    from peftc.runtime.state import read_adapter, write_adapter

    given = read_adapter(adapter)
    if to != "peftc":
        from peftc.exchange.exporting import export

        read = load_model(model).get_parameter if model else None
        with whole_folder(output, replaces="") as folder:
            export(given, folder, to, read, model)
        return say(f"wrote {output}")
    made = exported(given)
    with whole_folder(output, replaces="") as folder:
        write_adapter(folder, made)
    before, after = (sum(t.numel() for t in a.tensors.values()) for a in (given, made))
    say(f"wrote {output}: {before:,} numbers became {after:,}")
    return None
