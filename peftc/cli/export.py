"""`peftc export ADAPTER -o DIR`: the adapter without what only training needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Adapter
from peftc.cli.output import check_replaceable, say, whole_folder


@guarded
def command(
    adapter: Adapter,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write.")
    ],
) -> None:
    """Write an adapter to give away; no model is needed.

    What methods compute from their own tensors is computed, where the result is
    smaller: the rows of a prefix that was trained through a hidden layer.
    """
    check_replaceable(output, replaces="")

    from peftc.runtime.export import exported
    from peftc.runtime.state import read_adapter, write_adapter

    given = read_adapter(adapter)
    made = exported(given)
    with whole_folder(output, replaces="") as folder:
        write_adapter(folder, made)
    before, after = (sum(t.numel() for t in a.tensors.values()) for a in (given, made))
    say(f"wrote {output}: {before:,} numbers became {after:,}")
