"""Trials of a search: what was tried, what came of it, and how that is shown.

In: specs and measures.  Out: `Trial`s, plain data, a table and a picture.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from peftc.markdown import table
from peftc.tuning.picture import draw

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from peftc.diagnostics.core import PeftcError

LOWER_IS_BETTER = "loss"


@dataclass(frozen=True)
class Trial:
    """One spec of a space, from 1; `value` is None for a trial without result, and
    then `reason` says why.  `choices` are what was decided, by name."""

    number: int
    spec: str
    choices: dict[str, Any] = field(default_factory=dict)
    trainable: int | None = None
    value: float | None = None
    measures: dict[str, Any] | None = None
    seconds: float = 0.0
    state: str = "pruned"
    reason: str = ""

    def choosing(self, choices: Mapping[str, Any]) -> Trial:
        """The trial with what was decided."""
        return replace(self, choices=dict(choices))

    def counting(self, trainable: int) -> Trial:
        """The trial with the number of parameters that it trains."""
        return replace(self, trainable=trainable)

    def refused(self, error: PeftcError) -> Trial:
        """The trial, ended by diagnostics."""
        return replace(self, reason="; ".join(map(str, error.diagnostics)))

    def over(self, budget: int) -> Trial:
        """The trial of a spec that trains too much."""
        return replace(self, reason=f"over the budget of {budget:,} parameters")

    def measured(self, found: dict[str, Any], metric: str, seconds: float) -> Trial:
        """The trial with its result."""
        value = found[metric]
        if value is None:
            return replace(self, measures=found, reason=f"{metric} is not finite")
        return replace(
            self, measures=found, value=value, seconds=seconds, state="complete"
        )

    def line(self, of: int) -> str:
        """The trial on one line."""
        result = f"{self.value:.4f}" if self.value is not None else self.reason
        return (
            f"trial {self.number}/{of}  {self.state}  {result}  {_one_line(self.spec)}"
        )


def record(trial: Trial) -> dict[str, Any]:
    """A trial as plain data, from which `Trial(**...)` makes it again."""
    return asdict(trial)


def markdown(result: Mapping[str, Any], order: Iterable[Trial]) -> str:
    """The table of a search, the best first, trials without result last."""
    metric, base, best = result["metric"], result["base"], result["best"]
    parts = ["# A search", f"```peft\n{result['space'].strip()}\n```"]
    if base:
        parts.append(f"The base has {metric} {base[metric]:.4f}.")
    if best:
        parts.append(
            f"Best, also in `best.peft`:\n\n```peft\n{best['spec'].strip()}\n```"
        )
    head = ("trial", "state", metric, "trainable", "seconds", "spec or reason")
    parts.append(table(head, map(_row, order)))
    parts.append("![trials](trials.png)")
    return "\n\n".join(parts) + "\n"


def _row(trial: Trial) -> tuple[str, ...]:
    known = trial.value is not None
    spec = f"`{_one_line(trial.spec)}`"
    about = spec if not trial.reason else f"{spec}: {trial.reason}"
    return (
        str(trial.number),
        trial.state,
        f"{trial.value:.4f}" if known else "",
        f"{trial.trainable:,}" if trial.trainable is not None else "",
        f"{trial.seconds:.1f}",
        about.replace("|", "\\|").replace("\n", " "),
    )


def _one_line(spec: str) -> str:
    return " ".join(spec.split())


def draw_trials(path: Path, trials: Sequence[Trial], metric: str) -> bool:
    """Left each trial and the best so far; right the measure against the parameters."""
    worked = [
        (t.number, t.trainable or 0, t.value) for t in trials if t.value is not None
    ]
    if not worked:
        return False
    numbers, sizes, values = zip(*worked, strict=True)
    better = min if metric == LOWER_IS_BETTER else max

    def paint(axes: Any) -> None:
        axes.axis("off")
        left, right = (
            axes.inset_axes((0, 0, 0.45, 1)),
            axes.inset_axes((0.55, 0, 0.45, 1)),
        )
        left.plot(numbers, values, "o", label="trial")
        left.step(numbers, list(accumulate(values, better)), where="post", label="best")
        left.set(xlabel="trial", ylabel=f"held-out {metric}")
        left.legend()
        right.semilogx(sizes, values, "o")
        right.set(xlabel="trainable parameters")

    return draw(path, paint)
