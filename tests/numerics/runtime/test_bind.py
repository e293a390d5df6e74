"""The marker's layout, and reading it in captured graphs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import fx

from peftc.runtime.bind import Binding, Layout, layout, marker, read
from peftc.runtime.names import ROWS
from tests.numerics.runtime.tiny import llama, plan_for, refused

Q = "model.layers.0.self_attn.q_proj"


def graph_with(*markers: tuple[Layout, dict[str, str]]) -> fx.Graph:
    """A graph with these markers; a read goes to a placeholder of the given name."""
    graph = fx.Graph()
    made: dict[str, fx.Node] = {}

    def value(name: str) -> fx.Node:
        if name not in made:
            made[name] = graph.placeholder(name)
        return made[name]

    for one, names in markers:
        values = [value(names.get(r.path, r.path.replace(".", "_"))) for r in one.reads]
        modes = [True] * len(one.sites)
        graph.call_function(marker, (one.signature, modes, *values))
    graph.output(())
    return graph


def read_all(graph: fx.Graph, *layouts: Layout) -> Binding:
    return read(graph, layouts, {})


@pytest.fixture(scope="module")
def whole() -> Layout:
    model = llama(layers=1)
    return layout(plan_for(model), "hash", model)


def test_what_is_passed(whole: Layout) -> None:
    paths = [one.path for one in whole.reads]
    assert paths[:3] == [
        f"{Q}.weight",
        f"{Q}.peftc.q.low.A",
        f"{Q}.peftc.q.low.B",
    ]
    assert len(paths) == len(set(paths)) == 6
    assert whole.sites == (f"{Q}:q", f"{Q.replace('q_proj', 'v_proj')}:v")


def test_a_part_passes_its_own() -> None:
    model = llama(layers=2)
    plan = plan_for(model)
    part = layout(plan, "hash", model, "model.layers.1")
    assert all(read.path.startswith("model.layers.1.") for read in part.reads)
    assert len(part.sites) == 2
    assert not layout(plan, "hash", model, "lm_head").sites
    assert part.signature != layout(plan, "hash", model).signature


def test_scattered_rows_are_passed() -> None:
    model = llama(layers=1)
    plan = plan_for(model)
    first, *rest = plan.rewrites
    first = replace(first, site=replace(first.site, rows=((0, 4), (8, 12))))
    given = layout(replace(plan, rewrites=(first, *rest)), "hash", model)
    (rows,) = [one for one in given.reads if one.name == ROWS]
    assert rows.path == f"{Q}.peftc.q.rows"


def test_a_marker_is_read_and_erased(whole: Layout) -> None:
    graph = graph_with((whole, {}))
    binding = read_all(graph, whole)
    assert not [n for n in graph.nodes if n.target is marker]
    assert set(binding.base.values()) == {
        f"{Q}.weight",
        f"{Q.replace('q_proj', 'v_proj')}.weight",
    }
    tensors = binding.tensors[f"{Q}:q"]
    assert {name: node.target for name, node in tensors.items()} == {
        "low.A": f"{Q}.peftc.q.low.A".replace(".", "_"),
        "low.B": f"{Q}.peftc.q.low.B".replace(".", "_"),
    }
    assert binding.training == dict.fromkeys(whole.sites, True)


def test_markers_that_agree_are_one(whole: Layout) -> None:
    model = llama(layers=1)
    part = layout(plan_for(model), "hash", model, "model.layers.0")
    graph = graph_with((whole, {}), (part, {}))
    once = read_all(graph_with((whole, {})), whole)
    binding = read_all(graph, whole, part)
    assert binding.tensors.keys() == once.tensors.keys()
    assert len(binding.base) == 2


def test_markers_that_disagree_are_refused(whole: Layout) -> None:
    model = llama(layers=1)
    part = layout(plan_for(model), "hash", model, "model.layers.0")
    with refused("PEFT606"):
        other = {f"{Q}.peftc.q.low.A": "something_else"}
        read_all(graph_with((whole, {}), (part, other)), whole, part)
    with refused("PEFT606"):
        read_all(graph_with((whole, {})), replace(whole, signature="other"))


def test_other_parameters_are_known_by_identity() -> None:
    model = llama(layers=1)
    seen: dict[str, Any] = {}

    def backend(gm: fx.GraphModule, inputs: list[Any]) -> Any:
        named = {id(p): name for name, p in model.named_parameters()}
        seen["binding"] = read(gm.graph, [empty], named)
        gm.recompile()
        return gm.forward

    empty = layout(replace(plan_for(model), rewrites=()), "hash", model)

    def forward(ids: torch.Tensor) -> Any:
        marker(empty.signature, [])
        return model(input_ids=ids).logits

    torch.compile(forward, backend=backend, fullgraph=True)(torch.ones(1, 3).long())
    found = seen["binding"].base.values()
    assert sorted(found) == sorted(name for name, _ in model.named_parameters())
