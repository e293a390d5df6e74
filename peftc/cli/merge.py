"""`peftc merge ADAPTER MODEL -o DIR`: a plain model with adapters in its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from peftc.cli.guard import guarded
from peftc.cli.options import (
    Adapter,
    AnyBase,
    Model,
    Output,
    RandomInit,
    load_model,
)
from peftc.cli.output import check_replaceable, say, whole_folder
from peftc.diagnostics.core import fail
from peftc.diagnostics.merging import WrongSum

if TYPE_CHECKING:
    from peftc.merging.change import Choices, Told
    from peftc.merging.combine import Sum
    from peftc.runtime.state import Adapter as Read


Also: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(help="Another adapter to add; may be given several times."),
]
Weights: TypeAlias = Annotated[
    str, typer.Option(help="Of each adapter in the sum, such as 0.7,0.3; else 1.")
]
Way: TypeAlias = Annotated[
    str, typer.Option(help="How several are added up: linear, ties or dare.")
]
Density: TypeAlias = Annotated[
    float, typer.Option(help="The part of each that ties and dare keep.")
]
Recode: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--recode", help="Round weights that were kept in codes to codes again."
    ),
]
Untie: TypeAlias = Annotated[
    bool, typer.Option("--untie", help="Write tied weights apart.")
]
InMemory: TypeAlias = Annotated[
    bool, typer.Option("--in-memory", help="Load the whole model to merge it.")
]


@guarded
def command(
    adapter: Adapter,
    model: Model,
    output: Output,
    also: Also = None,
    weights: Weights = "",
    way: Way = "linear",
    density: Density = 1.0,
    seed: Annotated[int, typer.Option(help="What dare draws by.", min=0)] = 0,
    recode: Recode = False,
    untie: Untie = False,
    in_memory: InMemory = False,
    random_init: RandomInit = None,
    any_base: AnyBase = False,
) -> None:
    """Merge saved adapters into their base and write a plain model folder.

    Weights pass through memory one by one, from file to file; a base with weights kept
    in codes becomes what they decode to, and what that changes is measured.
    """
    check_replaceable(output, replaces="")

    from peftc.merging.change import Choices
    from peftc.merging.combine import Sum
    from peftc.merging.folder import merge_folder
    from peftc.runtime.state import read_adapter

    read = [read_adapter(place) for place in (adapter, *(also or ()))]
    how = Sum(_numbers(weights) or (1.0,) * len(read), way, density, seed)
    how.check(len(read))
    choices = Choices(any_base=any_base, recode=recode, untie=untie)
    whole = in_memory or random_init is not None
    if whole and untie:
        raise fail(WrongSum(problem="`--untie` works on files", hint="leave it out"))
    with whole_folder(output, replaces="") as folder:
        if whole:
            base: Any = load_model(model, random_init)
            told = _in_memory(read, base, folder, how, choices)
        else:
            told = merge_folder(read, Path(model), folder, how, choices)
        _report(told, read, model, folder, any_base=any_base)
    say(f"wrote {output}")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise fail(WrongSum(problem=f"`{text}` are no numbers")) from None


def _in_memory(
    read: list[Read], model: Any, folder: Path, how: Sum, choices: Choices
) -> Told:
    from peftc.merging.memory import merge_loaded

    told = merge_loaded(read, model, how, choices)
    model.save_pretrained(folder)
    return told


def _report(
    told: Told, read: list[Read], model: str, folder: Path, *, any_base: bool
) -> None:
    """Say what rounding lost, and, of a base in codes, what that does to results."""
    if told.lost:
        path, most = max(told.lost.items(), key=lambda one: one[1])
        lost = f"at most {most:.2g} of a weight (`{path}`)" if most else "nothing"
        say(f"rounding lost {lost}")
    first, *others = read
    if others or not told.stored:
        return

    from peftc.api import load
    from peftc.merging.measure import logit_error

    tuned: Any = load(load_model(model), first.path, any_base=any_base)
    error = logit_error(tuned.peftc, folder)
    say(f"results differ from those of the base in codes by {error:.2g}")
