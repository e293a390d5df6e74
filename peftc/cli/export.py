"""`peftc export ADAPTER -o DIR`: the adapter to give away, in our format or another; or
the tuned model as a program."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import Adapter, AnyBase, Output, RandomInit, load_model
from peftc.cli.output import check_replaceable, say, whole_folder
from peftc.diagnostics.core import fail
from peftc.diagnostics.exchange import NeedsBase


@guarded
def command(
    adapter: Adapter,
    output: Output,
    to: Annotated[
        str,
        typer.Option(
            help="An adapter: peftc, peft (Hugging Face), portable. "
            "The whole tuned model: pt2 (torch.export), aoti (machine code)."
        ),
    ] = "peftc",
    model: Annotated[
        str, typer.Option(help="The base, for programs and what holds values of it.")
    ] = "",
    random_init: RandomInit = None,
    any_base: AnyBase = False,
) -> None:
    """Write an adapter to give away; mostly no model is needed.

    What methods compute from their own tensors is computed, where the result is
    smaller: the rows of a prefix that was trained through a hidden layer.  `portable`
    is PEFT's format with plain low-rank products only, for servers and converters.
    `pt2` and `aoti` are programs that torch runs alone, for any number of samples and
    tokens.
    """
    check_replaceable(output, replaces="")
    if to in PROGRAMS:
        return _program(adapter, output, to, model, random_init, any_base=any_base)
    if to != "peftc":
        return _foreign(adapter, output, to, model, random_init)
    return _ours(adapter, output)


PROGRAMS = ("pt2", "aoti")
"""What is no adapter; `runtime.package` says more, and loads torch."""


def _ours(adapter: Path, output: Path) -> None:
    from peftc.runtime.export import exported
    from peftc.runtime.state import read_adapter, write_adapter

    given = read_adapter(adapter)
    made = exported(given)
    with whole_folder(output, replaces="") as folder:
        write_adapter(folder, made)
    before, after = (sum(t.numel() for t in a.tensors.values()) for a in (given, made))
    say(f"wrote {output}: {before:,} numbers became {after:,}")


def _foreign(
    adapter: Path, output: Path, to: str, model: str, random_init: int | None
) -> None:
    from peftc.exchange.exporting import export
    from peftc.runtime.state import read_adapter

    given = read_adapter(adapter)
    read = load_model(model, random_init).get_parameter if model else None
    with whole_folder(output, replaces="") as folder:
        export(given, folder, to, read, model)
    say(f"wrote {output}")


def _program(
    adapter: Path,
    output: Path,
    to: str,
    model: str,
    random_init: int | None,
    *,
    any_base: bool,
) -> None:
    from peftc.api import load

    if not model:
        raise fail(NeedsBase(what=f"`{to}` is a program of the whole model"))
    tuned: Any = load(load_model(model, random_init), adapter, any_base=any_base)
    with whole_folder(output, replaces="") as folder:
        file = tuned.peftc.export(folder, to=to)
    say(f"wrote {output / file.name}")
