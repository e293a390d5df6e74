"""Products with parameters are found in every spelling, and only those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers.integrations import moe  # registers the grouped product
from transformers.pytorch_utils import Conv1D

from peftc.sites.linears import Products, find_products
from tests.unit.sites.toys import WIDTH, Function, graph_of

if TYPE_CHECKING:
    from peftc.sites.linears import Linear


def products(model: nn.Module) -> tuple[Products, dict[Any, str]]:
    captured = graph_of(model)
    names = dict(captured.names)
    return find_products(captured.graph, names), names


def only(model: nn.Module) -> tuple[Linear, dict[Any, str]]:
    found, names = products(model)
    (linear,) = found.linears.values()
    assert not found.opaque
    return linear, names


assert moe
Shapes: TypeAlias = "dict[str, tuple[int, ...]]"

MATRIX: Shapes = {"w": (6, 8)}
TURNED: Shapes = {"w": (8, 6)}
BIASED: Shapes = {**MATRIX, "c": (6,)}

SPELLINGS: dict[str, tuple[Any, Shapes, bool]] = {
    "linear": (lambda m, x: F.linear(x, m.w), MATRIX, False),
    "named": (lambda m, x: F.linear(input=x, weight=m.w, bias=m.c), BIASED, False),
    "T": (lambda m, x: x @ m.w.T, MATRIX, False),
    "t": (lambda m, x: torch.matmul(x, m.w.t()), MATRIX, False),
    "transpose": (lambda m, x: x.matmul(m.w.transpose(0, 1)), MATRIX, False),
    "turned": (lambda m, x: x @ m.w, TURNED, True),
    "twice": (lambda m, x: x @ m.w.T.T, TURNED, True),
    "turned-linear": (lambda m, x: F.linear(x, m.w.T), TURNED, True),
    "cast": (lambda m, x: F.linear(x, m.w.to(torch.float32)), MATRIX, False),
}


def add_in_place(x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    x += c
    return x


BIASED_LATER: dict[str, Any] = {
    "+": lambda m, x: x @ m.w + m.c,
    "left": lambda m, x: m.c + x @ m.w,
    "+=": lambda m, x: add_in_place(x @ m.w, m.c),
    "linear": lambda m, x: F.linear(x, m.w.T).add_(m.c),
    "flat": lambda m, x: torch.mm(x.view(-1, 8), m.w).view(2, 5, 6) + m.c,
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_spelling(name: str) -> None:
    function, shapes, transposed = SPELLINGS[name]
    linear, names = only(Function(function, **shapes))
    assert (linear.inside, linear.outside) == (8, 6)
    assert linear.transposed is transposed
    assert names[linear.anchor.weight] == "w"
    assert (linear.anchor.bias is not None) is ("c" in shapes)
    assert linear.anchor.x.op == "placeholder"
    assert linear.anchor.y is linear.call


def test_the_views_around_a_flat_product_belong_to_it() -> None:
    linear, names = only(Conv1D(6, 8))
    assert linear.transposed
    assert linear.call.target is torch.addmm
    assert linear.anchor.x.op == "placeholder"
    assert list(linear.call.users) == [linear.anchor.y]
    assert linear.anchor.bias is not None
    assert names[linear.anchor.bias] == "bias"


def test_a_flat_product_without_views_is_itself() -> None:
    model = Function(lambda m, x: torch.addmm(m.c, x[0], m.w), w=(8, 6), c=(6,))
    linear, _ = only(model)
    assert linear.anchor.y is linear.call
    assert linear.anchor.x is linear.call.args[1]


@pytest.mark.parametrize("name", BIASED_LATER)
def test_a_bias_that_the_next_operator_adds(name: str) -> None:
    linear, names = only(Function(BIASED_LATER[name], w=(8, 6), c=(6,)))
    assert linear.transposed
    assert linear.anchor.bias is not None
    assert names[linear.anchor.bias] == "c"
    assert linear.anchor.bias in linear.anchor.y.all_input_nodes
    assert linear.anchor.x.op == "placeholder"


NO_BIAS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "positions": (lambda m, x: x @ m.w + m.c, (5, 6)),
    "scaled": (lambda m, x: torch.add(x @ m.w, m.c, alpha=2), (6,)),
    "behind an activation": (lambda m, x: torch.tanh(x @ m.w) + m.c, (6,)),
}


@pytest.mark.parametrize("name", NO_BIAS)
def test_a_sum_that_is_no_bias(name: str) -> None:
    function, shape = NO_BIAS[name]
    linear, _ = only(Function(function, w=(8, 6), c=shape))
    assert linear.anchor.bias is None
    assert linear.anchor.y is linear.call


OPAQUE: dict[str, tuple[Any, Shapes]] = {
    "scaled": (lambda m, x: torch.addmm(m.c, x[0], m.w, alpha=2), TURNED | {"c": (6,)}),
    "with and without": (lambda m, x: (y := x @ m.w) * (y + m.c), TURNED | {"c": (6,)}),
    "activation as bias": (lambda m, x: torch.addmm(x[1, :, :6], x[0], m.w), TURNED),
    "left": (lambda m, x: m.w @ x.transpose(1, 2), MATRIX),
    "stack of others": (lambda m, x: torch.bmm(m.w, x.mT), {"w": (2, 6, 8)}),
    "rows of one expert each": (
        lambda m, x: torch.bmm(x, m.w[x[:, 0, 0].long()]),
        {"w": (3, 8, 6)},
    ),
    "expert": (lambda m, x: F.linear(x, m.w[1]), {"w": (3, 6, 8)}),
    "convolution": (lambda m, x: F.conv1d(x.mT, m.w), {"w": (6, 8, 3)}),
}


@pytest.mark.parametrize("name", OPAQUE)
def test_a_product_that_is_no_linear(name: str) -> None:
    function, shapes = OPAQUE[name]
    found, names = products(Function(function, **shapes))
    assert not found.linears
    (parameters,) = found.opaque.values()
    assert [names[p] for p in parameters] == ["w"]


def numbers(x: torch.Tensor) -> torch.Tensor:
    return x[:, 0, 0].long()


def grouped(m: Any, x: torch.Tensor) -> torch.Tensor:
    expert = numbers(x)
    counts = torch.histc(expert.float(), bins=3, min=0, max=2)
    ends = counts.cumsum(0, dtype=torch.int32)
    y = torch.ops.transformers.grouped_mm_fallback(x[:, 1], m.w.mT, offs=ends)
    y.add_(m.c[expert])
    assert isinstance(y, torch.Tensor)
    return y


def picked(m: Any, x: torch.Tensor) -> Any:
    expert = numbers(x)
    return torch.bmm(m.w[expert], x[:, 1].unsqueeze(-1)).squeeze(-1) + m.c[expert]


def picked_rows(m: Any, x: torch.Tensor) -> torch.Tensor:
    return torch.bmm(x[:, 1].unsqueeze(1), m.w[numbers(x)]).squeeze(1)


def each(m: Any, x: torch.Tensor) -> Any:
    return torch.bmm(x, m.w.transpose(1, 2)) + m.c.unsqueeze(1)


STACKS: dict[str, tuple[Any, Shapes, str]] = {
    "grouped": (grouped, {"w": (3, 6, 8), "c": (3, 6)}, "grouped"),
    "picked rows": (picked_rows, {"w": (3, 8, 6)}, "picked"),
    "picked columns": (picked, {"w": (3, 6, 8), "c": (3, 6)}, "picked"),
    "each": (lambda m, x: torch.bmm(x, m.w), {"w": (2, 8, 6)}, "each"),
    "each biased": (each, {"w": (2, 6, 8), "c": (2, 6)}, "each"),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_of_matrices(name: str) -> None:
    function, shapes, kind = STACKS[name]
    linear, names = only(Function(function, **shapes))
    anchor = linear.anchor
    assert anchor.routing is not None
    assert anchor.routing.kind == kind
    assert linear.experts == shapes["w"][0]
    assert (linear.inside, linear.outside) == (8, 6)
    assert linear.transposed == (shapes["w"][1] == 8)
    assert (anchor.bias is not None and names[anchor.bias]) == ("c" in shapes and "c")
    assert (anchor.written is not None) == (name == "grouped")


def test_products_of_activations_are_no_products() -> None:
    found, _ = products(Function(lambda m, x: x @ x.mT * m.w, w=(5,)))
    assert not found.linears
    assert not found.opaque


def test_a_table() -> None:
    found, names = products(Function(lambda m, x: F.embedding(x.long(), m.w), w=(9, 4)))
    (gather,) = found.gathers.values()
    assert names[gather.weight] == "w"
    assert gather.index.target == "long"


def test_a_shared_matrix_is_used_twice() -> None:
    found, _ = products(Function(lambda m, x: x @ m.w @ m.w, w=(8, 8)))
    weights = {linear.anchor.weight for linear in found.linears.values()}
    assert (len(found.linears), len(weights)) == (2, 1)


def test_a_table_may_be_read_by_an_index() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        chosen = x.sum(-1).topk(2).indices
        return m.table[torch.arange(5)], m.biases[chosen], m.table[:3], m.table[2]

    captured = graph_of(Function(forward, table=(9, WIDTH), biases=(9, WIDTH)))
    gathers = find_products(captured.graph, captured.names).gathers.values()
    assert [captured.names[one.weight] for one in gathers] == ["table"]
