"""Options of the commands that train and measure.

In: values of the command line.  Out: annotated types for typer, and `Settings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.tuning.settings import Settings

Data: TypeAlias = Annotated[
    str, typer.Argument(help="A JSONL file, a text file, or the name of a data set.")
]
Steps: TypeAlias = Annotated[
    int, typer.Option(help="How long; 200 if `--epochs` is not given either.", min=0)
]
Epochs: TypeAlias = Annotated[
    float, typer.Option(help="How often all data are seen, instead.", min=0)
]
Batch: TypeAlias = Annotated[int, typer.Option(help="Samples of a step.", min=1)]
Rate: TypeAlias = Annotated[
    float, typer.Option(help="The highest rate; it rises, then falls as a cosine.")
]
Warmup: TypeAlias = Annotated[
    float, typer.Option(help="The share of the steps in which the rate rises.")
]
Evaluated: TypeAlias = Annotated[
    str, typer.Option("--eval", help="Data to measure on, before and after.")
]
HeldOut: TypeAlias = Annotated[
    float, typer.Option(help="The share of the data to measure on, without --eval.")
]
MaxLength: TypeAlias = Annotated[
    int, typer.Option(help="Tokens of a sample; 512 or fewer if not given.", min=0)
]
Truncate: TypeAlias = Annotated[
    bool, typer.Option("--truncate", help="Cut what is longer, instead of refusing.")
]
TaskName: TypeAlias = Annotated[
    str, typer.Option(help="causal, seq2seq or classification; else what fits.")
]
AsBytes: TypeAlias = Annotated[
    bool, typer.Option("--bytes", help="The bytes of the text are the tokens.")
]
Labels: TypeAlias = Annotated[
    int, typer.Option(help="Classes of a new head, if more than the data.", min=0)
]

Trials: TypeAlias = Annotated[
    int, typer.Option(help="Trials in all, earlier ones included.", min=1)
]
Metric: TypeAlias = Annotated[
    str, typer.Option(help="Held-out loss, accuracy or exact.")
]
Budget: TypeAlias = Annotated[
    int, typer.Option(help="Most trained parameters; 0: any number.", min=0)
]


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings among a command's arguments."""
    from peftc.tuning.settings import Settings

    named = {"rate": "lr", "longest": "max_length"}
    names = Settings.__dataclass_fields__
    pairs = ((name, named.get(name, name)) for name in names)
    return Settings(**{name: given[arg] for name, arg in pairs if arg in given})
