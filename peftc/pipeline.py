"""Passes: what one is, the order they run in, and the one manager that runs them.

In: `peftc.passes.PIPELINE`, an ordered tuple of names; each names a file of the same
name with underscores that registers one pass.  Out: the refined Plan, and the number
of rewrites in a captured graph.  A wrong order is refused before anything runs.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

import networkx as nx

from peftc.plan.types import Plan

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.anchors import Capture


class Fact(Enum):
    """What holds of a plan or a graph; passes need and ensure facts."""

    BUILT = "every application is at a site, with its tensors"
    CHECKED = "tensor sizes are whole and within budget"
    MERGES_KNOWN = "every rewrite has its merge class and reason"
    ORDERED = "every rewrite has its programs"
    MEMORY_KNOWN = "bytes are estimated"
    BOUND = "the graph is captured and its sites are located"
    LINEARS_REWRITTEN = "sites that are whole linears compute their programs"
    ROWS_REWRITTEN = "sites that are rows of a fused linear compute their programs"
    EDGES_REWRITTEN = "hidden edges compute their programs"
    ATTENTIONS_REWRITTEN = "attentions run over the rows of their programs"
    POSITIONS_REWRITTEN = "tables of positions are read from where tokens start"
    INPUTS_REWRITTEN = "rows of programs stand among the embedded tokens"
    NORMS_REWRITTEN = "gains and offsets compute their programs"
    VERIFIED = "the graph holds every rewrite the plan asks of it"
    LESS_KEPT = "what is cheap to compute again is not kept for the backward"
    DECODED = "no weight that is kept in codes is read as it is"


PlanPass = Callable[[Plan], Plan]
GraphPass = Callable[["Capture", Plan], int]


@dataclass(frozen=True)
class Pass:
    """The record of one pass: its name, stage, function, and facts."""

    name: str
    stage: Literal["plan", "graph"]
    run: Callable[..., Any]
    requires: frozenset[Fact]
    ensures: frozenset[Fact]


PASSES: dict[str, Pass] = {}


def _register(
    stage: Literal["plan", "graph"], name: str, facts: tuple[Any, Any]
) -> Any:
    def decorate(run: Callable[..., Any]) -> Callable[..., Any]:
        if name in PASSES:
            raise TypeError(f"pass `{name}` is registered twice")
        if "rewrite:" not in (run.__doc__ or ""):
            raise TypeError(f"pass `{name}`: its docstring needs a `rewrite:` block")
        PASSES[name] = Pass(name, stage, run, frozenset(facts[0]), frozenset(facts[1]))
        return run

    return decorate


def plan_pass(
    name: str, *, requires: Iterable[Fact], ensures: Iterable[Fact]
) -> Callable[[PlanPass], PlanPass]:
    """Register a pure `Plan -> Plan`; it returns its argument if nothing matched."""
    decorate: Callable[[PlanPass], PlanPass] = _register(
        "plan", name, (requires, ensures)
    )
    return decorate


def graph_pass(
    name: str, *, requires: Iterable[Fact], ensures: Iterable[Fact]
) -> Callable[[GraphPass], GraphPass]:
    """Register `(Capture, Plan) -> int`: edits the graph, returns how many rewrites."""
    decorate: Callable[[GraphPass], GraphPass] = _register(
        "graph", name, (requires, ensures)
    )
    return decorate


def load(names: Sequence[str], package: str = "peftc.passes") -> tuple[Pass, ...]:
    """The passes of these names, importing only their files."""
    for name in names:
        if name not in PASSES:
            importlib.import_module(f"{package}.{name.replace('-', '_')}")
    return tuple(PASSES[name] for name in names)


def check_order(passes: Sequence[Pass], given: Iterable[Fact]) -> None:
    """Refuse a pipeline in which a pass runs before what it needs.

    Raises:
        ValueError: naming the pass, the missing fact and who ensures it.
    """
    graph: nx.DiGraph[str] = nx.DiGraph()
    makers = {fact: p.name for p in passes for fact in p.ensures}
    held = set(given)
    for one in passes:
        graph.add_node(one.name)
        graph.add_edges_from(
            (makers[fact], one.name) for fact in one.requires if fact in makers
        )
        for fact in one.requires - held:
            maker = makers.get(fact, "no pass in the pipeline")
            raise ValueError(f"pass `{one.name}` needs {fact.name}, made by {maker}")
        held |= one.ensures
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError(f"passes wait for each other: {nx.find_cycle(graph)}")


_IN_PLACE = (
    *("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "imatmul"),
    *("iand", "ior", "ixor"),
)


def writes(node: fx.Node) -> bool:
    """Whether a node changes something, though nobody may read its result.

    Dynamo's graphs are not functional: a static cache is filled by `index_copy_`, and
    levels of `vmap` are opened and closed by calls that torch.fx takes for pure.
    """
    target = node.target
    if getattr(target, "__module__", "") == "torch._functorch.predispatch":
        return True
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    if getattr(target, "__module__", "") == "_operator":  # has `and_`, which does not
        return name in _IN_PLACE
    marked = name.endswith("_") and not name.endswith("__")
    return marked or "out" in node.kwargs


def _drop_dead(graph: fx.Graph, unread: set[fx.Node]) -> None:
    """Erase what nobody reads any more and what changes nothing.

    What was unread before is there for its effect: an end of a vmap, for instance.
    `Graph.eliminate_dead_code` would drop that, and go on to the bodies in the graph,
    such as the backward of a `torch.autograd.Function`, and drop what writes in place.
    """
    for node in reversed(graph.nodes):
        kept = node in unread or node.is_impure() or writes(node)
        if not node.users and not kept:
            graph.erase_node(node)


def facts_of(plan: Plan) -> frozenset[Fact]:
    """The facts that a plan shows: what passes have put into it.

    Of one that was read from text this is all there is to know.
    """
    facts = {Fact.BUILT}
    if all(rewrite.merge.kind != "unknown" for rewrite in plan.rewrites):
        facts |= {Fact.CHECKED, Fact.MERGES_KNOWN}
    if any(rewrite.programs for rewrite in plan.rewrites):
        facts.add(Fact.ORDERED)
    if plan.memory:
        facts.add(Fact.MEMORY_KNOWN)
    return frozenset(facts)


Watcher = Callable[[str, Any], None]
"""Called after each pass with its name and what it made."""

Guard = Callable[[str, Plan], AbstractContextManager[object]]
"""Entered around each pass with its name and the plan it was given."""


@dataclass(frozen=True)
class Manager:
    """Runs passes in order, times them and shows what each made."""

    passes: tuple[Pass, ...]
    watch: Watcher | None = None
    guard: Guard = lambda name, plan: nullcontext()
    seconds: dict[str, float] = field(default_factory=dict)

    def _timed(self, one: Pass, *args: Any) -> Any:
        start = time.perf_counter()
        with self.guard(one.name, args[-1]):
            result = one.run(*args)
        self.seconds[one.name] = time.perf_counter() - start
        return result

    def refine(self, plan: Plan, given: Iterable[Fact] = (Fact.BUILT,)) -> Plan:
        """Run the plan passes; `given` holds of the plan already.

        Raises:
            ValueError: if a pass would run before what it needs.
        """
        for one in self._stage("plan", given):
            plan = self._timed(one, plan)
            self._show(one.name, plan)
        return plan

    def rewrite(self, capture: Capture, plan: Plan) -> int:
        """Run the graph passes; the graph is edited in place.  Returns all rewrites."""
        total = 0
        unread = {node for node in capture.graph.nodes if not node.users}
        for one in self._stage("graph", (Fact.BOUND,)):
            total += self._timed(one, capture, plan)
            self._show(one.name, capture.graph)
        _drop_dead(capture.graph, unread)
        capture.graph.lint()
        return total

    def _stage(self, stage: str, given: Iterable[Fact]) -> tuple[Pass, ...]:
        chosen = tuple(p for p in self.passes if p.stage == stage)
        check_order(chosen, given)
        return chosen

    def _show(self, name: str, result: Any) -> None:
        if self.watch:
            self.watch(name, result)
