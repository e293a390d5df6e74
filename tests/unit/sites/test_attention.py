"""Attention in every spelling: which value is the query, which the key, which the
value, and what is no attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention

from peftc.sites import ops
from peftc.sites.attention import find_attentions
from peftc.sites.flow import strip
from peftc.sites.linears import find_products
from tests.unit.sites.toys import Function, graph_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import fx

WEIGHTS = dict.fromkeys("qkv", (8, 8))
LAYOUT = ops.VIEWS | {"expand"}


def attention(mix: Callable[..., Any]) -> list[str]:
    """The parameters that make the three inputs of the one attention of a module."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        q, k, v = (F.linear(x, w) for w in (m.q, m.k, m.v))
        heads = (t.unflatten(-1, (2, -1)).transpose(1, 2) for t in (q, k, v))
        return mix(m, *heads)

    with torch.no_grad():  # flex attention has no gradient on the CPU
        captured = graph_of(Function(forward, **WEIGHTS, mask=(5, 5), sink=(2, 5, 1)))
    products = find_products(captured.graph, captured.names)
    (found,) = find_attentions(captured.graph, products)

    def made_by(node: fx.Node) -> str:
        linear = products.linears[strip(node, LAYOUT)]
        return captured.names[linear.anchor.weight]

    return [made_by(node) for _, node in found.inputs]


def spelt(scores: Callable[..., Any]) -> Callable[..., Any]:
    return lambda m, q, k, v: torch.matmul(F.softmax(scores(m, q @ k.mT), -1), v)


def flat(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.reshape(4, 5, 4) for t in (q, k, v))
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), -1), v)


def biased(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    q, k, v = (t.reshape(4, 5, 4) for t in (q, k, v))
    bias = m.mask.expand(4, 5, 5)
    return torch.baddbmm(bias, q, k.mT, alpha=0.5).softmax(-1).bmm(v)


def sinks(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    scores = torch.cat((q @ k.mT, m.sink.expand(2, 2, 5, 1)), -1)
    return F.softmax(scores, -1)[..., :-1] @ v


SPELLINGS = {
    "fused": lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v),
    "named": lambda m, q, k, v: F.scaled_dot_product_attention(
        value=v, key=k, query=q, attn_mask=m.mask
    ),
    "flex": lambda m, q, k, v: flex_attention(q, k, v),
    "plain": spelt(lambda m, s: s),
    "scaled": spelt(lambda m, s: s * 0.5 / 2),
    "masked": spelt(lambda m, s: s + m.mask),
    "filled": spelt(lambda m, s: s.masked_fill(m.mask > 0, -1e9)),
    "chosen": spelt(lambda m, s: torch.where(m.mask > 0, s, -1e9)),
    "capped": spelt(lambda m, s: torch.tanh(s / 50) * 50 + m.mask),
    "in double": spelt(lambda m, s: s.double().to(torch.float32)),
    "flat": flat,
    "biased": biased,
    "sinks": sinks,
    "dropped": lambda m, q, k, v: (
        F.dropout((q @ k.mT).softmax(-1).to(q.dtype), 0.1) @ v
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling(name: str) -> None:
    assert attention(SPELLINGS[name]) == ["q", "k", "v"]


def test_order_tells_the_query_not_the_name() -> None:
    def swapped(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return (k @ v.mT).softmax(-1) @ q

    assert attention(swapped) == ["k", "v", "q"]


NO_ATTENTION = {
    "router": lambda m, x: F.softmax(x @ m.q, -1).topk(2)[0],
    "turned scores": lambda m, x: F.softmax((x @ x.mT).mT, -1) @ x,
    "weights on the right": lambda m, x: x.mT @ F.softmax(x @ x.mT, -1),
    "pooling": lambda m, x: F.softmax(x @ m.q, 1).mT @ x,
}


@pytest.mark.parametrize("name", NO_ATTENTION)
def test_no_attention(name: str) -> None:
    captured = graph_of(Function(NO_ATTENTION[name], q=(8, 8)))
    products = find_products(captured.graph, captured.names)
    assert find_attentions(captured.graph, products) == ()
