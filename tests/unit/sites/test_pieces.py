"""Matrices that are split before they are used, as `nn.MultiheadAttention` has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peftc.sites.linears import find_products
from peftc.sites.view import model_view
from tests.unit.sites.toys import WIDTH, Function, Layer, Model, graph_of

W = {"w": (9, WIDTH), "b": (9,), "c": (5,), "d": (4,)}


def of_pieces(m: Any, x: torch.Tensor) -> Any:
    one, two = m.w.split([4, 5])
    return F.linear(x, one, m.b[:4]), F.linear(x, two, m.b[4:])


def of_chunks_put_together(m: Any, x: torch.Tensor) -> Any:
    offsets = torch.cat((m.d, m.c)).split([4, 5])
    return F.linear(x, m.w[:4], offsets[0]), F.linear(x, m.w[4:].contiguous())


@pytest.mark.parametrize("forward", [of_pieces, of_chunks_put_together])
def test_rows_of_a_matrix_and_its_bias(forward: Any) -> None:
    captured = graph_of(Function(forward, **W))
    linears = find_products(captured.graph, captured.names).linears.values()
    named = [
        (captured.names[one.anchor.weight], one.anchor.rows, one.outside)
        for one in linears
    ]
    if forward is of_pieces:
        assert named == [("w", (0, 4), 4), ("w", (4, 9), 5)]
    else:
        # A whole vector is no part of the vector that belongs to the whole matrix.
        assert named == [("w", (4, 9), 5)]


def test_a_whole_matrix_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbering the rows of every matrix of a large model would take minutes."""

    def numbers(*args: Any) -> Any:
        raise AssertionError("the rows of a whole matrix were numbered")

    monkeypatch.setattr("peftc.sites.pieces.Execution", numbers)
    captured = graph_of(Function(lambda m, x: F.linear(x, m.w, m.b), **W))
    (linear,) = find_products(captured.graph, captured.names).linears.values()
    assert linear.anchor.rows is None


@pytest.mark.parametrize(
    "take",
    [lambda w: w[:, :4], lambda w: w[::2], lambda w: w[:4] * 2],
    ids=["columns", "every second row", "scaled rows"],
)
def test_what_is_not_rows_one_after_another_is_no_linear(take: Any) -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        return F.linear(x[..., :4] if take(m.w).shape[1] == 4 else x, take(m.w))

    captured = graph_of(Function(forward, **W))
    assert not find_products(captured.graph, captured.names).linears


class Torch(Layer):
    """A layer whose attention is torch's own module, to itself or to other tokens."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count
        self.core = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.norm(x)
        three = (y, y, y) if self.count == 1 else (y, y + 1, y + 1)
        if self.count == 3:
            three = (y, y + 1, y + 2)
        x = x + self.core(*three, need_weights=False)[0]
        return x + self.feed(self.other(x))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_attention_module_of_torch(count: int) -> None:
    model_view(Model(Torch(count)))
    torch._dynamo.trace_rules.clear_lru_cache()  # as torch does now and then
    view = model_view(Model(Torch(count)))
    rows = {site.role: site.rows for site in view.sites if "in_proj" in site.weight}
    wanted = {r: ((i * WIDTH, (i + 1) * WIDTH),) for i, r in enumerate("qkv")}
    assert {role: rows[role] for role in "qkv"} == wanted
    assert not view.unresolved
