"""Pictures of losses and of trials, with matplotlib where it is installed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from peftc.files import write_atomically
from peftc.tuning.extras import is_there, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

SMOOTHED = 0.9
"""The weight of what was before in the smoothed curve."""


def draw(path: Path, paint: Callable[[Any], None]) -> bool:
    """Write a picture that `paint` draws on matplotlib axes; whether it can be."""
    if not is_there("matplotlib"):
        return False
    figure: Any = require("matplotlib", "a picture", "matplotlib.figure").Figure(
        figsize=(7, 4), layout="constrained"
    )
    paint(figure.subplots())
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_atomically(path, content.getvalue())
    return True


def loss_curve(path: Path, losses: Sequence[float], held_out: dict[str, float]) -> bool:
    """The loss of each step, smoothed as well, and what was held out as levels."""

    def paint(axes: Any) -> None:
        steps = range(1, len(losses) + 1)
        axes.plot(steps, losses, linewidth=0.7, alpha=0.4, label="training, each step")
        axes.plot(steps, smooth(losses), linewidth=1.8, label="training, smoothed")
        for style, (name, level) in zip((":", "--"), held_out.items(), strict=False):
            axes.axhline(level, linestyle=style, color="black", label=name)
        axes.set(xlabel="step", ylabel="loss (nats)")
        axes.legend()

    return draw(path, paint)


def smooth(values: Sequence[float]) -> list[float]:
    """A running mean that begins at the first value.

    >>> smooth([1.0, 1.0])
    [1.0, 1.0]
    """
    made: list[float] = []
    for value in values:
        before = made[-1] if made else value
        made.append(SMOOTHED * before + (1 - SMOOTHED) * value)
    return made
