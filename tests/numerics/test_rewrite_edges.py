"""Rewritten edges and norms against the same models adapted by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peftc.sites.anchors import HiddenAnchor, Located, NormAnchor
from tests.capturing import (
    bottleneck,
    linear_uses,
    low_rank,
    plan,
    rewrite,
    rewritten,
    scaling,
    site,
)
from tests.numerics.exactly import assert_equal_with_gradients, draws

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

IN, OUT, R = 6, 12, 3


@pytest.fixture(autouse=True)
def _fixed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


class Block(nn.Module):
    """A feed-forward sublayer, pre-norm or post-norm, and what reads its sum."""

    def __init__(self, post: bool, spelt: bool = False) -> None:
        super().__init__()
        self.norm, self.post, self.spelt = nn.LayerNorm(IN), post, spelt
        nn.init.normal_(self.norm.weight)
        self.up, self.down = nn.Linear(IN, OUT), nn.Linear(OUT, IN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compose(x, lambda h, u, n: h, self.norm.weight)

    def compose(self, x: torch.Tensor, adapt: Any, gain: torch.Tensor) -> torch.Tensor:
        """The forward with `adapt(h, u, n)` for h (n is a thunk), and another gain."""

        def norm(value: torch.Tensor) -> torch.Tensor:
            if self.spelt:
                square = value.pow(2).mean(-1, keepdim=True)
                return gain * (value * torch.rsqrt(square + self.norm.eps))
            return F.layer_norm(value, (IN,), gain, self.norm.bias, self.norm.eps)

        u = x if self.post else norm(x)
        h = self.down(torch.tanh(self.up(u)))
        total = adapt(h, u, lambda: norm(h + x) if self.post else h)
        total += x
        return norm(total) if self.post else torch.tanh(total)


FFN = site("down:ffn", "hidden", shape=(IN,))
NORM = site("norm:norm", "norm", shape=(IN,))
DOWN = site("down:down", weight="down.weight", shape=(IN, OUT))


def in_block(graph: fx.Graph, names: Mapping[fx.Node, str]) -> list[Located]:
    """The three sites of a Block."""
    by_name = {name: node for node, name in names.items()}
    (down,) = linear_uses(graph, names, "down.weight")
    (up,) = linear_uses(graph, names, "up.weight")
    (add,) = down.y.users
    last = next(n for n in graph.nodes if n.op == "output").args[0][0]
    norm = None if last.target is torch.tanh else last
    gain = NormAnchor(by_name["norm.weight"], by_name.get("norm.bias"))
    return [
        Located(DOWN, (down,)),
        Located(FFN, (HiddenAnchor(down.y, add, up.x, norm),)),
        Located(NORM, (gain,)),
    ]


def bottled(value: torch.Tensor, t: Any) -> torch.Tensor:
    return F.linear(torch.relu(F.linear(value, t["D"], t["b"])), t["U"])


@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("reads", ["h", "u", "n"])
@pytest.mark.parametrize("dynamic", [None, True])
def test_hidden_edges(post: bool, reads: str, dynamic: bool | None) -> None:
    block = Block(post).double()
    tensors = draws(D=(R, IN), b=(R,), U=(IN, R))
    x = torch.randn(2, 5, IN, dtype=torch.float64, requires_grad=True)
    planned = plan(rewrite(FFN, bottleneck(IN, R, reads)))
    run = rewritten(block, planned, {FFN.key: tensors}, in_block, dynamic=dynamic)

    def adapt(h: torch.Tensor, u: torch.Tensor, n: Any) -> torch.Tensor:
        return h + bottled({"h": h, "u": u, "n": n()}[reads], tensors)

    expected = block.compose(x, adapt, block.norm.weight)
    assert_equal_with_gradients(run.forward(x), expected, [x, *tensors.values()])


@pytest.mark.parametrize("spelt", [False, True])
@pytest.mark.parametrize("post", [False, True])
@pytest.mark.parametrize("reads", ["h", "u", "n"])
def test_edge_linear_and_norm_together(post: bool, reads: str, spelt: bool) -> None:
    block = Block(post, spelt).double()
    edge, low = draws(D=(R, IN), b=(R,), U=(IN, R)), draws(A=(R, OUT), B=(IN, R))
    gain = draws(l=(IN,))
    tensors = {FFN.key: edge, DOWN.key: low, NORM.key: gain}
    x = torch.randn(2, 5, IN, dtype=torch.float64, requires_grad=True)
    planned = plan(
        rewrite(NORM, scaling("g", IN)),
        rewrite(FFN, bottleneck(IN, R, reads)),
        rewrite(DOWN, low_rank(IN, OUT, R)),
    )
    run = rewritten(block, planned, tensors, in_block)
    changed = Block(post, spelt).double()
    changed.load_state_dict(block.state_dict())
    delta = 0.5 * low["B"] @ low["A"]
    down = changed.down.weight
    del changed.down.weight
    changed.down.weight = down + delta

    def adapt(h: torch.Tensor, u: torch.Tensor, n: Any) -> torch.Tensor:
        return h + bottled({"h": h, "u": u, "n": n()}[reads], edge)

    expected = changed.compose(x, adapt, gain["l"] * block.norm.weight)
    leaves = [x, *(t for own in tensors.values() for t in own.values())]
    assert_equal_with_gradients(run.forward(x), expected, leaves)
