"""The report as tables of text.

In: a report.  Out: `Table`s, which the terminal and Markdown show alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.bench.peers import (
    EAGER,
    FROZEN,
    FROZEN_COMPILED,
    INDUCTOR,
    PEERS,
    PEFT,
    PEFT_COMPILED,
)
from peftc.bench.ratios import ratio
from peftc.bench.targets import verdicts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peftc.bench.report import Report, Row
    from peftc.bench.timing import Round

SHOWN = 24
"""Operations of a profile that are shown."""


@dataclass(frozen=True)
class Table:
    """A title, a head, rows; the first column is text, others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(report: Report) -> tuple[Table, ...]:
    """All tables that the report fills."""
    made = (
        _times("Milliseconds of a step, least of all rounds", report, "rounds"),
        _times("Milliseconds, wall time of two threads, least", report, "wall"),
        _ratios("Ratios of times in the same round", report, "rounds"),
        _ratios("Ratios, wall time of two threads", report, "wall"),
        _bytes("Kept for the backward, MiB", report, "saved"),
        _bytes("Most on the device in a step, MiB", report, "peak"),
        _firsts(report),
        _stages(report),
        _graphs(report),
        _targets(report),
        *(_profile(row) for row in report.rows),
    )
    return tuple(table for table in made if table.rows)


def notes(report: Report) -> tuple[str, ...]:
    """What a reader has to know beside the tables."""
    found = [f"{row.title}: {row.problem}" for row in report.rows if row.problem]
    missing: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        for peer, reason in row.missing.items():
            missing.setdefault((peer, reason), []).append(row.title)
    found += [
        f"`{peer}` is missing ({', '.join(rows)}): {reason}"
        for (peer, reason), rows in missing.items()
    ]
    if report.busy:
        cores = f"{min(report.others):.1f} to {max(report.others):.1f}"
        found.append(f"other work used {cores} cores while rows were timed")
    if report.interrupted:
        found.append("the run was interrupted; what is here was measured before")
    return tuple(found)


# --- rows of peers --------------------------------------------------------------------


def _present(rows: Sequence[Row], kind: str) -> tuple[str, ...]:
    """Peers that any row has figures of, in the order of `PEERS`."""
    named = {name for row in rows for name in _figures(row, kind)}
    return tuple(name for name in PEERS if name in named)


def _figures(row: Row, kind: str) -> dict[str, float]:
    found = getattr(row, kind)
    if isinstance(found, dict):
        return found
    return _least(found)


def _least(rounds: Sequence[Round]) -> dict[str, float]:
    names = rounds[0] if rounds else {}
    return {name: min(one[name] for one in rounds) for name in names}


def _by_peer(title: str, report: Report, kind: str, scale: float) -> Table:
    rows = [row for row in report.rows if _figures(row, kind)]
    peers = _present(rows, kind)
    lines = (
        (row.title, *(_number(_figures(row, kind).get(p), scale) for p in peers))
        for row in rows
    )
    return Table(title, ("", *peers), tuple(lines))


def _times(title: str, report: Report, kind: str) -> Table:
    return _by_peer(title, report, kind, 1000)


def _bytes(title: str, report: Report, kind: str) -> Table:
    return _by_peer(title, report, kind, 2**-20)


def _firsts(report: Report) -> Table:
    title = (
        "Seconds to the end of the first step, wall time, with Inductor's disk cache"
    )
    return _by_peer(title, report, "first", 1)


def _number(value: float | None, scale: float = 1) -> str:
    if value is None:
        return ""
    scaled = value * scale
    return f"{scaled:.1f}" if scaled < 1000 else f"{scaled:,.0f}"


# --- ratios ---------------------------------------------------------------------------


def _ratios(title: str, report: Report, kind: str) -> Table:
    head = ("", "median", "quartiles", "of the least")
    lines = (line for row in report.rows for line in _compared(row, kind))
    return Table(title, head, tuple(lines))


def _compared(row: Row, kind: str) -> Iterator[tuple[str, ...]]:
    """Our backends with the peers that they are to be measured by."""
    for ours in (EAGER, INDUCTOR):
        compiled = ours == INDUCTOR
        below = (FROZEN_COMPILED, PEFT_COMPILED) if compiled else (FROZEN,)
        for peer in (*below, PEFT):
            found = ratio(getattr(row, kind), ours, peer)
            if found:
                spread = f"{found.low:.3f} to {found.high:.3f}"
                numbers = (f"{found.median:.3f}", spread, f"{found.least:.3f}")
                yield f"{row.title}: {ours} / {peer}", *numbers


# --- compiling ------------------------------------------------------------------------


def _stages(report: Report) -> Table:
    names = ("capture", "sites", "plan", "install", "rewrite", "own")
    head = ("layers", "sites found", *names, "own, ms a site", "own / first")
    title = "Seconds of compiling by stage; capture is Dynamo's, the rest is ours"
    lines = (
        (
            str(one.layers),
            str(one.linears),
            *(f"{getattr(one, name):.3f}" for name in names),
            f"{1000 * one.own / one.linears:.1f}",
            f"{one.own / report.stages[0].own:.2f}",
        )
        for one in report.stages
    )
    return Table(title, head, tuple(lines))


def _graphs(report: Report) -> Table:
    rows = [row for row in report.rows if row.graphs]
    states = tuple(dict.fromkeys(state for row in rows for state in row.graphs))
    lines = (
        (row.title, *(str(row.graphs.get(state, "")) for state in states))
        for row in rows
    )
    return Table(
        "Graphs captured so far, after each state", ("", *states), tuple(lines)
    )


# --- targets and profiles -------------------------------------------------------------


def _targets(report: Report) -> Table:
    lines = (
        (
            one.target.title,
            "" if one.value is None else f"{one.value:.2f}",
            f"{one.target.must:.2f}",
            f"{one.target.ambitious:.2f}",
            one.state,
        )
        for one in verdicts(report)
    )
    head = ("", "measured", "must", "ambitious", "")
    return Table("Targets", head, tuple(lines))


def _profile(row: Row) -> Table:
    peers = tuple(name for name in PEERS if any(name in c for c in _costs(row)))
    head = ("operation", *peers)
    lines = [
        (name, *(_cost(costs.get(peer)) for peer in peers))
        for name, costs in list(row.operations.items())[:SHOWN]
    ]
    if lines:
        totals = (_total(row, peer) for peer in peers)
        lines.append(("all", *(_cost(total) for total in totals)))
    title = f"{row.title}: milliseconds of a step in each operation alone, and calls"
    return Table(title, head, tuple(lines))


def _costs(row: Row) -> list[dict[str, list[float]]]:
    return list(row.operations.values())


def _total(row: Row, peer: str) -> list[float]:
    costs = [one[peer] for one in _costs(row) if peer in one]
    return [sum(cost[0] for cost in costs), sum(cost[1] for cost in costs)]


def _cost(cost: list[float] | None) -> str:
    return f"{cost[0]:.1f} x{cost[1]:.0f}" if cost else ""
