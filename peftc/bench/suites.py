"""What each suite asks for.

In: the name of a suite.  Out: rows to be measured, the depths at which stages are
timed, the number of rounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.bench import workloads
from peftc.bench.cases import CASES
from peftc.bench.choices import unknown
from peftc.bench.peers import (
    EAGER,
    FROZEN,
    FROZEN_COMPILED,
    HUB,
    INDUCTOR,
    LIGER,
    PEFT,
    PEFT_COMPILED,
    PEFT_HALF,
    PLAIN,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftc.bench.cases import Case
    from peftc.bench.workloads import Workload


@dataclass(frozen=True)
class Ask:
    """One row: what is timed of whom; the first of ours is who others agree with.

    `rounds`: 0 for the suite's number.
    """

    workload: Workload
    case: Case
    peers: tuple[str, ...]
    task: str = "train"
    rounds: int = 0

    @property
    def title(self) -> str:
        """How the row is called."""
        doing = "" if self.task == "train" else f", {self.task}"
        return f"{self.workload.name} {self.case.name}{doing}"


@dataclass(frozen=True)
class Suite:
    """`depths` are those at which the stages of `deep` are timed."""

    asks: tuple[Ask, ...]
    rounds: int
    depths: tuple[int, ...] = ()
    deep: str = "lora"

    def on(self, names: Iterable[str]) -> Suite:
        """Only the rows on these workloads, if any are named, and no stages.

        Raises:
            PeftcError: PEFT711 for a name that the suite has not.
        """
        known = {ask.workload.name.lower(): ask.workload.name for ask in self.asks}
        wanted = {name.lower() for name in names}
        for name in wanted - known.keys():
            raise unknown("--workloads", name, known.values())
        chosen = (a for a in self.asks if a.workload.name.lower() in wanted)
        return replace(self, asks=tuple(chosen), depths=()) if wanted else self

    def of(self, cases: tuple[Case, ...], peers: tuple[str, ...]) -> Suite:
        """Only these methods and peers, if there are any; a method that no row has is
        compared on the first row's workload."""
        asks = self.asks
        if cases:
            have = {ask.case for ask in asks}
            more = (replace(asks[0], case=c) for c in cases if c not in have and asks)
            asks = tuple(a for a in (*asks, *more) if a.case in cases)
        if peers:
            asks = tuple(replace(ask, peers=peers) for ask in asks)
        return replace(self, asks=asks)


_ONE = (FROZEN, EAGER, PEFT)
_SIMPLE = (FROZEN, EAGER, PLAIN, PEFT)
_WHOLE = (FROZEN, FROZEN_COMPILED, EAGER, PLAIN, INDUCTOR, PEFT, PEFT_COMPILED)
_COMPILED = tuple(peer for peer in _WHOLE if peer != FROZEN_COMPILED)
_DEPTHS = (2, 8, 32)


def _large() -> list[Ask]:
    """C1: compiled peers cost a minute each, so only two methods have them."""
    peers = {
        "lora": (*_WHOLE, LIGER),
        "dora": _COMPILED,
        "adapter64": (*_ONE, HUB),
    }
    return [
        Ask(workloads.C1, case, peers.get(name, _ONE)) for name, case in CASES.items()
    ]


def _other() -> list[Ask]:
    both = (CASES["lora"], CASES["dora"])
    short = [Ask(workloads.C1_SHORT, case, _COMPILED) for case in both[:1]]
    short += [Ask(workloads.C1_SHORT, case, _SIMPLE) for case in both[1:]]
    half = (*_SIMPLE, PEFT_HALF)
    return [*short, Ask(workloads.C1_HALF, CASES["lora"], half)]


def _small() -> list[Ask]:
    """Forwards alone and generation, where Python's own time weighs most."""
    names, tasks = ("lora", "prefix30"), ("train", "forward", "generate")
    return [
        Ask(workloads.SMALL, CASES[name], _ONE, task)
        for name in names
        for task in tasks
    ]


def _coverage() -> list[Ask]:
    """Other families: that graphs are found, not how fast they are."""
    families = (workloads.BERT, workloads.GPT2, workloads.T5)
    names = ("lora", "dora", "prefix30", "adapter64", "lora+prefix+adapter")
    peers = (FROZEN, EAGER, PLAIN)
    return [Ask(w, CASES[name], peers, rounds=3) for w in families for name in names]


def suite(name: str) -> Suite:
    """The suite of this name.

    Raises:
        PeftcError: PEFT711 if there is none.
    """
    if name not in SUITES:
        raise unknown("--suite", name, SUITES)
    return SUITES[name]


SUITES: Mapping[str, Suite] = {
    "quick": Suite((Ask(workloads.TINY, CASES["lora"], _SIMPLE),), 5),
    "cpu": Suite((*_large(), *_other(), *_small(), *_coverage()), 15, _DEPTHS),
    "compile": Suite((), 3, _DEPTHS),
}
