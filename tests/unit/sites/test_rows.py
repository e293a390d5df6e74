"""Rows of fused weights are exact for any layout."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from peftc.sites.flow import Flow
from peftc.sites.linears import find_products
from peftc.sites.rows import RowFinder, ranges
from tests.unit.sites.toys import Function, graph_of

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 12


def rows_of(pieces: Callable[[Any, Any], Any], **more: tuple[int, ...]) -> list[Any]:
    """The rows that each output of `pieces` depends on."""

    def forward(m: Any, x: torch.Tensor) -> Any:
        return pieces(m, F.linear(x, m.w))

    captured = graph_of(Function(forward, w=(ROWS, 8), **more))
    (linear,) = find_products(captured.graph, captured.names).linears.values()
    finder = RowFinder(Flow.of(captured.graph))
    (values,) = captured.graph.output_node().args
    assert isinstance(values, tuple | list)
    return [list(finder.rows(linear.anchor.y, value)) for value in values]  # type: ignore[arg-type]


def rotated(x: torch.Tensor, cos: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * (1 - cos)


LAYOUTS: dict[str, tuple[Any, list[list[int]]]] = {
    "whole": (lambda m, y: (y * 2,), [list(range(12))]),
    "blocks": (
        lambda m, y: y.chunk(3, -1),
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
    ),
    "per head": (
        lambda m, y: y.unflatten(-1, (2, 3, 2)).transpose(1, 2).unbind(-2),
        [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]],
    ),
    "per group": (
        lambda m, y: (lambda g: (g[..., :-2, :], g[..., [-2], :], g[..., [-1], :]))(
            y.unflatten(-1, (2, 3, 2))
        ),
        [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]],
    ),
    "every other": (
        lambda m, y: (y[..., ::2], y[..., 1::2]),
        [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]],
    ),
    "rotated and repeated": (
        lambda m, y: (
            rotated(y[..., :4], m.cos).repeat_interleave(3, -1),
            F.layer_norm(y[..., 4:8], (4,)).expand(2, 2, 5, 4),
        ),
        [[0, 1, 2, 3], [4, 5, 6, 7]],
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout(name: str) -> None:
    pieces, wanted = LAYOUTS[name]
    assert rows_of(pieces, cos=(4,)) == wanted


def test_a_write_in_place_carries_rows() -> None:
    def pieces(m: Any, y: torch.Tensor) -> Any:
        buffer = torch.empty_like(y[..., :6])
        buffer[..., :2] = y[..., 3:5]
        buffer[..., 2:].copy_(y[..., 8:])
        return (buffer,)

    assert rows_of(pieces) == [[3, 4, 8, 9, 10, 11]]


def test_equal_layers_are_computed_once() -> None:
    def forward(m: Any, x: torch.Tensor) -> Any:
        return [F.linear(x, w).chunk(2, -1)[1] for w in (m.a, m.b, m.c)]

    shapes = {name: (ROWS, 8) for name in "abc"}  # noqa: C420
    captured = graph_of(Function(forward, **shapes))
    finder = RowFinder(Flow.of(captured.graph))
    linears = find_products(captured.graph, captured.names).linears.values()
    (values,) = captured.graph.output_node().args
    assert isinstance(values, tuple | list)
    for linear, value in zip(linears, values, strict=True):
        assert finder.rows(linear.anchor.y, value) == tuple(range(6, 12))
    assert len(finder.known) == 1


@settings(max_examples=200, deadline=None)
@given(st.sets(st.integers(0, 300)))
def test_ranges_hold_exactly_the_rows(rows: set[int]) -> None:
    found = ranges(tuple(sorted(rows)))
    assert [i for a, b in found for i in range(a, b)] == sorted(rows)
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(found))


@pytest.mark.parametrize("seed", range(3))
def test_any_interleaving(seed: int) -> None:
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(seed)).tolist()
    cut = 3 + seed

    def pieces(m: Any, y: torch.Tensor) -> Any:
        mixed = y[..., order]
        return mixed[..., :cut], mixed[..., cut:]

    assert rows_of(pieces) == [sorted(order[:cut]), sorted(order[cut:])]


def test_rows_that_numbers_in_a_tensor_choose_are_not_told() -> None:
    index = torch.arange(ROWS)
    assert rows_of(lambda m, y: (y[..., index],)) == [[]]
