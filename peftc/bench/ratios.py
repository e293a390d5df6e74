"""Ratios of times that were taken in the same round.

In: rounds, two names.  Out: `Ratio`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Ratio:
    """How one time relates to another.

    `median` and the quartiles `low` and `high` are of the ratios of each round; `least`
    is the ratio of the least times, which no disturbance made longer.
    """

    median: float
    low: float
    high: float
    least: float

    def record(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def ratio(
    rounds: Sequence[Mapping[str, float]], above: str, below: str
) -> Ratio | None:
    """Time of `above` by time of `below`; None without a round that has both.

    >>> ratio([{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 2.0}], "a", "b")
    Ratio(median=1.0, low=0.75, high=1.25, least=0.5)
    """
    pairs = [(r[above], r[below]) for r in rounds if above in r and below in r]
    if not pairs:
        return None
    each = [one / other for one, other in pairs]
    low, middle, high = quartiles(each)
    least = min(one for one, _ in pairs) / min(other for _, other in pairs)
    return Ratio(middle, low, high, least)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """A quarter of the values lies below the first, half below the second, ...

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 3.0, 4.0)
    """
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, _, high = quantiles(values, n=4, method="inclusive")
    return low, median(values), high
