"""Bytes kept: each storage once, no parameters, nothing that is dropped on the way."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from peftc.bench.saved import saved_bytes

SIZE = 8 * 8 * 4


class Model(nn.Module):
    """Gives the sum of what `kind` makes of a square matrix."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(8, 8))
        self.kind = kind

    def forward(self, x: Tensor) -> Any:
        return SimpleNamespace(loss=getattr(self, self.kind)(x).sum())

    def product(self, x: Tensor) -> Tensor:
        return x @ self.w.t()  # keeps x, and a turned view of the weight

    def twice(self, x: Tensor) -> Tensor:
        return x @ self.w + x @ self.w.t()

    def squares(self, x: Tensor) -> Tensor:
        made = self.w * x
        return made * made.exp()  # keeps x, made and its exponential

    def dropped(self, x: Tensor) -> Tensor:
        for _ in range(3):
            _ = (self.w * x).exp().detach()
        return self.product(x)


@pytest.mark.parametrize(
    ("kind", "count"), [("product", 1), ("twice", 1), ("squares", 3), ("dropped", 1)]
)
def test_what_is_kept(kind: str, count: int) -> None:
    batch = {"x": torch.ones(8, 8)}
    assert saved_bytes(Model(kind), batch) == count * SIZE
