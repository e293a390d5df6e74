"""Capture a small model, rewrite it by a hand-made plan, and run it: for tests.

The added tensors enter the graph as arguments of a marker, as they do in the product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import fx, nn

from peftc.expr.program import Input, Program, Step
from peftc.passes import GRAPH_PIPELINE
from peftc.pipeline import Manager, load
from peftc.plan.types import (
    AddedTensor,
    Application,
    ModelFacts,
    Plan,
    Rewrite,
)
from peftc.rewrite.check import check_located
from peftc.rewrite.print import graph_text
from peftc.sites.anchors import Capture, LinearAnchor, Located
from peftc.sites.linears import find_products
from peftc.view import Kind, Rows, Site

Tensors: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]
"""Site key, then tensor name, to the tensor."""
Locate: TypeAlias = Callable[[fx.Graph, Mapping[fx.Node, str]], Sequence[Located]]


def marker(*values: torch.Tensor) -> torch.Tensor:
    return torch.empty(0)


torch._dynamo.allow_in_graph(marker)


@dataclass
class Rewritten:
    """A model that runs rewritten; `captures` holds what its backend saw."""

    forward: Callable[..., Any]
    captures: list[Capture] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def capture(self) -> Capture:
        return self.captures[-1]


def rewritten(
    model: nn.Module,
    plan: Plan,
    tensors: Tensors,
    locate: Locate,
    *,
    backend: str = "eager",
    dynamic: bool | None = None,
) -> Rewritten:
    """Compile a model so that its graph is rewritten by `plan` before it runs."""
    torch._dynamo.reset()
    flat = [(key, name, t) for key, of in tensors.items() for name, t in of.items()]

    def forward(*args: Any, **kwargs: Any) -> Any:
        marker(*[t for _, _, t in flat])
        return model(*args, **kwargs)

    def compiler(gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        bound: dict[str, dict[str, fx.Node]] = {}
        (mark,) = (n for n in gm.graph.nodes if n.target is marker)
        for (key, name, _), node in zip(flat, mark.args, strict=True):
            bound.setdefault(key, {})[name] = node
        gm.graph.erase_node(mark)
        names = parameter_names(gm.graph, model)
        located = {one.site.key: one for one in locate(gm.graph, names)}
        modes = {key: _mode(model, one.site) for key, one in located.items()}
        check_located(plan, located, {path: node for node, path in names.items()})
        assert {r.site.key for r in plan.rewrites} <= located.keys()
        capture = Capture(gm.graph, located, bound, modes)
        Manager(load(GRAPH_PIPELINE)).rewrite(capture, plan)
        gm.recompile()
        result.captures.append(capture)
        result.texts.append(graph_text(gm.graph, _names(bound)))
        if backend == "eager":
            return gm.forward
        code: Callable[..., Any] = torch._dynamo.lookup_backend(backend)(gm, inputs)
        return code

    compiled = torch.compile(forward, backend=compiler, fullgraph=True, dynamic=dynamic)
    result = Rewritten(compiled)
    return result


def captured(
    model: nn.Module, *args: torch.Tensor
) -> tuple[fx.Graph, dict[fx.Node, str]]:
    """The graph of a forward as it is captured, and its parameters' paths."""
    torch._dynamo.reset()
    found: list[tuple[fx.Graph, dict[fx.Node, str]]] = []

    def compiler(gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        found.append((gm.graph, parameter_names(gm.graph, model)))
        return gm.forward

    torch.compile(model, backend=compiler, fullgraph=True)(*args)
    (one,) = found
    return one


def _mode(model: nn.Module, site: Site) -> bool:
    return model.get_submodule(site.owner).training


def _names(bound: Mapping[str, Mapping[str, fx.Node]]) -> dict[str, str]:
    return {
        node.name: f"{key}.{name}"
        for key, tensors in bound.items()
        for name, node in tensors.items()
    }


def parameter_names(graph: fx.Graph, model: nn.Module) -> dict[fx.Node, str]:
    """Placeholders of the model's parameters, with their paths."""
    paths = {id(p): name for name, p in model.named_parameters()}
    arguments = {
        node: node.meta["grapharg"].example
        for node in graph.find_nodes(op="placeholder")
        if "grapharg" in node.meta
    }
    return {n: paths[id(a)] for n, a in arguments.items() if id(a) in paths}


# --- plans by hand ----------------------------------------------------------------


def site(
    key: str,
    kind: Kind = "linear",
    *,
    rows: Rows | None = None,
    transposed: bool = False,
    weight: str = "",
    shape: tuple[int, ...],
) -> Site:
    """A site; `shape` is (out, in) of a linear, else (hidden,)."""
    owner, _, role = key.rpartition(":")
    axes = ("out", "in") if kind == "linear" else ("hidden",)
    return Site(
        key=key,
        role=role,
        kind=kind,
        owner=owner,
        sizes=tuple(zip(axes, shape, strict=True)),
        dtype="float32",
        rows=rows,
        transposed=transposed,
        weight=weight,
    )


def plan(*rewrites: Rewrite) -> Plan:
    return Plan(ModelFacts("tiny", "0", 0, 1), 0, "auto", (), rewrites)


def rewrite(of: Site, *programs: Program, origin: str = "spec.peft:1:1") -> Rewrite:
    """A rewrite whose added tensors are those that the programs read."""
    added = {
        i.name: AddedTensor(i.name, i.shape, "param", "0")
        for program in programs
        for i in program.inputs
        if not i.tokens and i.name not in ("W", "bias", "g", "c")
    }
    application = Application("m", "m", 0, (), tuple(added.values()), origin)
    return Rewrite(of, (application,), programs=programs)


def token(name: str, *shape: int) -> Input:
    return Input(name, shape, tokens=True)


def given(name: str, *shape: int) -> Input:
    return Input(name, shape, tokens=False)


def program(
    target: str, inputs: Sequence[Input], *steps: Step, separate: bool = False
) -> Program:
    return Program(target, tuple(inputs), steps, steps[-1].out, separate)


def step(
    out: str, op: Any, args: str, *shape: int, tokens: bool = True, **rest: Any
) -> Step:
    return Step(out, op, tuple(args.split()), shape, tokens, **rest)


def low_rank(out: int, into: int, r: int, scale: float = 0.5, p: float = 0) -> Program:
    """y' = y + scale * B (A drop(x))."""
    return program(
        "y",
        [token("x", into), token("y", out), given("A", r, into), given("B", out, r)],
        step("%0", "call", "x", into, fn="drop", attrs=(p,)),
        step("%1", "linear", "%0 A", r),
        step("%2", "linear", "%1 B", out),
        step("%3", "add", "y %2", out, coefs=(1.0, scale)),
    )


def scaling(target: str, size: int) -> Program:
    """y' = l * y (or h, g, c)."""
    tokens = target in ("y", "h")
    star = "*" if tokens else ""
    return program(
        target,
        [Input(target, (size,), tokens), given("l", size)],
        step(
            "%0", "ein", f"l {target}", size, tokens=tokens, spec=f"i,{star}i->{star}i"
        ),
    )


def input_scaling(out: int, into: int) -> Program:
    """x' = l * x."""
    return program(
        "y",
        [token("x", into), given("l", into)],
        step("%0", "ein", "l x", into, spec="i,*i->*i"),
        step("%1", "base", "%0", out),
    )


def bottleneck(hidden: int, d: int, reads: str = "h") -> Program:
    """h' = h + U relu(D reads + b)."""
    inputs = dict.fromkeys(("h", reads))
    return program(
        "h",
        [
            *(token(name, hidden) for name in inputs),
            *(given("D", d, hidden), given("b", d), given("U", hidden, d)),
        ],
        step("%0", "linear", f"{reads} D", d),
        step("%1", "add", "%0 b", d, coefs=(1.0, 1.0)),
        step("%2", "map", "%1", d, fn="relu"),
        step("%3", "linear", "%2 U", hidden),
        step("%4", "add", "h %3", hidden, coefs=(1.0, 1.0)),
    )


# --- anchors by hand ----------------------------------------------------------------


def linear_uses(
    graph: fx.Graph, names: Mapping[fx.Node, str], path: str
) -> Iterator[LinearAnchor]:
    """The anchors of the linear whose weight has this path, whatever its spelling."""
    for linear in find_products(graph, names).linears.values():
        if names[linear.anchor.weight] == path:
            yield linear.anchor


def at_linears(*sites: Site) -> Locate:
    """Locate linear sites by the paths of their weights."""

    def locate(graph: fx.Graph, names: Mapping[fx.Node, str]) -> list[Located]:
        return [
            Located(one, tuple(linear_uses(graph, names, one.weight))) for one in sites
        ]

    return locate
