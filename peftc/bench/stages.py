"""How long a model takes until it runs, by stages.

In: a workload and a case.  Out: seconds of wall time by stage.  What Dynamo takes to
capture is told apart from what is peftc's own: finding sites, planning, installing, and
rewriting the graph that training runs.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from peftc.bench.peers import EAGER
from peftc.bench.tasks import loss
from peftc.driver import install_plan, make_plan
from peftc.sites.view import model_view
from peftc.syntax.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.bench.cases import Case
    from peftc.bench.workloads import Workload

OWN = ("sites", "plan", "install", "rewrite")


@dataclass(frozen=True)
class Stages:
    """Seconds: `capture` is Dynamo's for the view and for the training step."""

    layers: int
    linears: int
    capture: float
    sites: float
    plan: float
    install: float
    rewrite: float

    @property
    def own(self) -> float:
        """What is peftc's."""
        return self.sites + self.plan + self.install + self.rewrite

    def record(self) -> dict[str, float]:
        """Plain data."""
        return {**asdict(self), "own": self.own}


def least(workload: Workload, case: Case, layers: int, repeats: int) -> Stages:
    """Each stage's least time: what else the machine does makes stages longer only."""
    found = [cold(workload.of_depth(layers), case) for _ in range(repeats)]
    names = ("capture", *OWN)
    best = {name: min(getattr(one, name) for one in found) for name in names}
    return Stages(layers, found[0].linears, **best)


def cold(workload: Workload, case: Case) -> Stages:
    """One model from its making to its first training step; imports are not counted."""
    torch._dynamo.reset()
    model, batch = workload.base(0), workload.inputs(0)
    seconds: dict[str, float] = {}
    with _timed(seconds, "view"), _dynamo(seconds, "first"):
        view = model_view(model)
    with _timed(seconds, "plan"):
        plan = make_plan(Source("<bench>", case.spec), view)
    with _timed(seconds, "install"):
        handle = install_plan(model, plan, case.spec, backend=EAGER)
    with _dynamo(seconds, "second"):
        loss(model, batch)
    return Stages(
        layers=int(workload.sizes["num_hidden_layers"]),
        linears=len(handle.sites),
        capture=seconds["first"] + seconds["second"],
        sites=seconds["view"] - seconds["first"],
        plan=seconds["plan"],
        install=seconds["install"],
        rewrite=seconds["second backend"],
    )


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - begun


@contextmanager
def _dynamo(seconds: dict[str, float], name: str) -> Iterator[None]:
    """What Dynamo took of the block, and what the backend that it called did."""
    from torch._dynamo.utils import compilation_time_metrics as metrics

    metrics.clear()
    yield
    backend = sum(metrics.get("OutputGraph.call_user_compiler", ()))
    seconds[name] = sum(metrics.get("_compile.compile_inner", ())) - backend
    seconds[f"{name} backend"] = backend
