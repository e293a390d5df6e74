"""The picture of a report: what our backends cost beside PEFT, or the frozen base.

In: a report.  Out: bars of the medians with their quartiles, drawn on axes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftc.bench.peers import FROZEN, OURS, PEFT
from peftc.bench.ratios import ratio
from peftc.tuning.picture import draw

if TYPE_CHECKING:
    from pathlib import Path

    from peftc.bench.ratios import Ratio
    from peftc.bench.report import Report, Row

WIDTH = 0.8
"""Of the bars of one row together."""


def plot(path: Path, report: Report) -> bool:
    """Write the picture; whether it could be."""
    rows = [row for row in report.rows if row.rounds]
    return draw(path, lambda axes: _paint(axes, rows)) if rows else False


def _paint(axes: Any, rows: list[Row]) -> None:
    backends = [name for name in OURS if any(name in row.rounds[0] for row in rows)]
    for number, backend in enumerate(backends):
        offset = WIDTH * ((number + 0.5) / len(backends) - 0.5)
        _bars(axes, backend, [_found(row, backend) for row in rows], offset)
    axes.axvline(1, linestyle="--", linewidth=0.8, color="black")
    titles = [f"{row.title}  (/ {_below(row)})" for row in rows]
    axes.set_yticks(range(len(rows)), titles, fontsize=6)
    axes.invert_yaxis()
    axes.set_xlabel("time by that of the peer, median and quartiles")
    axes.legend(fontsize=7)


def _bars(axes: Any, backend: str, ratios: list[Ratio | None], offset: float) -> None:
    known = [(number, one) for number, one in enumerate(ratios) if one]
    places = [number + offset for number, _ in known]
    widths = [one.median for _, one in known]
    low = [one.median - one.low for _, one in known]
    high = [one.high - one.median for _, one in known]
    height = 0.9 * WIDTH / len(OURS)
    axes.barh(places, widths, height=height, xerr=[low, high], label=backend)


def _below(row: Row) -> str:
    return PEFT if PEFT in row.rounds[0] else FROZEN


def _found(row: Row, backend: str) -> Ratio | None:
    return ratio(row.rounds, backend, _below(row))
