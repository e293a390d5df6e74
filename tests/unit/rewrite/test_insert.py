"""Inserted nodes are such that the compilers behind Dynamo take and cache the graph."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._functorch._aot_autograd.autograd_cache import (
    BypassAOTAutogradCache,
    check_cacheable,
)

from peftc.passes import GRAPH_PIPELINE
from peftc.pipeline import Manager, load
from peftc.sites.anchors import Capture, Located, NormAnchor
from tests.capturing import (
    captured,
    given,
    linear_uses,
    plan,
    program,
    rewrite,
    scaling,
    site,
    step,
    token,
)

N = 4
Q = site("lin:q", weight="lin.weight", shape=(N, N))
NORM = site("norm:norm", "norm", weight="norm.weight", shape=(N,))


class Net(nn.Module):
    """A linear, and a norm whose gain is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.norm = nn.Linear(N, N), nn.LayerNorm(N)

    def forward(self, x: torch.Tensor) -> Any:
        return self.norm(self.lin(self.norm(x)))


def split_scaling() -> Any:
    """y' = l * y, split and merged: a method is called on an inserted node."""
    return program(
        "y",
        [token("y", N), given("l", N)],
        step("%0", "ein", "l y", N, spec="i,*i->*i"),
        step("%1", "view", "%0", 2, N // 2),
        step("%2", "view", "%1", N),
    )


def rewritten_graph() -> fx.Graph:
    graph, names = captured(Net(), torch.randn(2, 3, N))
    by_name = {name: node for node, name in names.items()}
    tensors = {}
    for index, key in enumerate((Q.key, NORM.key)):
        with graph.inserting_before(next(iter(graph.nodes))):
            node = graph.placeholder(f"l_{index}")
        node.meta["example_value"] = by_name["norm.weight"].meta["example_value"]
        tensors[key] = {"l": node}
    gain, offset = by_name["norm.weight"], by_name["norm.bias"]
    located = {
        Q.key: Located(Q, tuple(linear_uses(graph, names, "lin.weight"))),
        NORM.key: Located(NORM, (NormAnchor(gain, offset), NormAnchor(gain, None))),
    }
    whole = plan(rewrite(Q, split_scaling()), rewrite(NORM, scaling("g", N)))
    capture = Capture(graph, located, tensors, {})
    assert Manager(load(GRAPH_PIPELINE)).rewrite(capture, whole) == 2
    return graph


def test_a_graph_is_cached_for_its_example_values() -> None:
    graph = rewritten_graph()
    check_cacheable(fx.GraphModule(nn.Module(), graph))
    made = [node for node in graph.nodes if "peftc.site" in node.meta]
    assert made
    for node in made:
        assert "stack_trace" in node.meta
        del node.meta["example_value"]
    with pytest.raises(BypassAOTAutogradCache):
        check_cacheable(fx.GraphModule(nn.Module(), graph))


def test_every_use_of_a_shared_gain_reads_the_new_one() -> None:
    graph = rewritten_graph()
    norms = [n for n in graph.nodes if n.target is nn.functional.layer_norm]
    assert len({norm.args[2] for norm in norms}) == 1
    assert "peftc.site" in norms[0].args[2].meta
