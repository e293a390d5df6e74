"""Options that several commands share, and what they mean.

In: strings of the command line.  Out: annotated types for typer, and watchers that
print what passes make.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from peftc.cli.output import say
from peftc.diagnostics.cli import UnreadableFile
from peftc.diagnostics.core import fail
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_text
from peftc.plan.types import Plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Spec: TypeAlias = Annotated[
    str, typer.Argument(help="A .peft file, or a spec as text.")
]
Model: TypeAlias = Annotated[
    str, typer.Argument(help="A folder with config.json, a config.json, or a hub name.")
]
Adapter: TypeAlias = Annotated[
    Path, typer.Argument(help="A folder with adapter.safetensors.")
]
PlanFile: TypeAlias = Annotated[
    str,
    typer.Argument(help="A plan's text, a folder with plan.txt, or - for stdin."),
]
Seed: TypeAlias = Annotated[
    int, typer.Option(help="Seed of the initial values.", min=0)
]
Dtype: TypeAlias = Annotated[
    str, typer.Option(help="Of new tensors: auto, float32, bfloat16, ...")
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="For programs.")]
RandomInit: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Random base weights of this seed, for a bare config.json."),
]
PrintIR: TypeAlias = Annotated[
    bool, typer.Option("--print-ir-after-all", help="Show what every pass made.")
]


Output: TypeAlias = Annotated[
    Path, typer.Option("--output", "-o", help="The folder to write.")
]
AnyBase: TypeAlias = Annotated[
    bool, typer.Option("--any-base", help="Take a base with other weights.")
]


def watcher(enabled: bool) -> Callable[[str, Any], None] | None:
    """A watcher that prints plans and graphs to stderr, if wanted."""
    return _print_ir if enabled else None


def _print_ir(name: str, made: Any) -> None:
    print(f"=== after {name}", file=sys.stderr)
    if isinstance(made, Plan):
        print(plan_text(made), file=sys.stderr)
    else:
        from peftc.rewrite.print import graph_text

        print(graph_text(made), file=sys.stderr)


def read_plan(place: str) -> Plan:
    """The plan of a command line.

    Raises:
        PeftcError: PEFT667 or PEFT306.
    """
    path = Path(place) / "plan.txt" if Path(place).is_dir() else Path(place)
    try:
        text = sys.stdin.read() if place == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or "it is no text"
        raise fail(UnreadableFile(path=str(path), problem=problem)) from None
    return parse_plan(text, "<stdin>" if place == "-" else str(path))


def load_model(model: str, random_init: int | None = None) -> PreTrainedModel:
    """The model of a command line, with its weights; what was noted is narrated."""
    from peftc.sites.load import load

    quiet_loading()
    loaded = load(model, random_init=random_init)
    for note in loaded.notes:
        say(f"note: {note}")
    return loaded.model


def quiet_loading() -> None:
    """Show no bar of transformers' where nobody sees it move."""
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
