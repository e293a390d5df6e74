"""Experts in a stack, beside a shared one, as models put them together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.sites.toys import INNER, WIDTH, Feed, Layer, Model, plain, told

EXPERTS = 3
BLOCK = "layers.0.feed"


class Mixture(nn.Module):
    """Every expert sees every token, weighted; one more is always on."""

    def __init__(self) -> None:
        super().__init__()
        self.choose = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.first = nn.Parameter(torch.randn(EXPERTS, WIDTH, 2 * INNER))
        self.second = nn.Parameter(torch.randn(EXPERTS, INNER, WIDTH))
        self.shared, self.much = Feed(plain), nn.Linear(WIDTH, 1)

    def weights(self, flat: torch.Tensor) -> torch.Tensor:
        best, index = self.choose(flat).topk(1)
        return torch.zeros(len(flat), EXPERTS).scatter(1, index, best.sigmoid())

    def routed(self, flat: torch.Tensor) -> torch.Tensor:
        each = self.weights(flat).t().unsqueeze(-1) * flat
        gate, up = torch.bmm(each, self.first).chunk(2, -1)
        return torch.bmm(F.silu(gate) * up, self.second).sum(0)

    def forward(self, x: torch.Tensor) -> Any:
        raise NotImplementedError


class Beside(Mixture):
    def forward(self, x: torch.Tensor) -> Any:
        flat = x.reshape(-1, WIDTH)
        return (self.routed(flat) + self.shared(flat)).reshape(x.shape)


class InPlace(Mixture):
    def forward(self, x: torch.Tensor) -> Any:
        flat = x.reshape(-1, WIDTH)
        y = self.shared(flat)
        y.add_(self.routed(flat))
        return y.view(x.shape)


class Scaled(Mixture):
    def forward(self, x: torch.Tensor) -> Any:
        flat = x.reshape(-1, WIDTH)
        shared = torch.sigmoid(self.much(flat)) * self.shared(flat)
        return (self.routed(flat) + shared).reshape(x.shape)


class ByMaximum(Mixture):
    def weights(self, flat: torch.Tensor) -> torch.Tensor:
        best, index = self.choose(flat).max(-1, keepdim=True)
        return torch.zeros(len(flat), EXPERTS).scatter(1, index, best.sigmoid())

    def forward(self, x: torch.Tensor) -> Any:
        flat = x.reshape(-1, WIDTH)
        return (self.routed(flat) + self.shared(flat)).reshape(x.shape)


class Routed(Layer):
    def __init__(self, feed: nn.Module) -> None:
        super().__init__()
        self.feed = feed  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Beside, InPlace, Scaled, ByMaximum])
def test_routed_and_shared_experts(kind: type[Mixture]) -> None:
    found = told(Model(Routed(kind())))
    roles = {s.role: s for s in found.sites if s.owner.startswith(BLOCK)}
    assert roles["router"].owner == f"{BLOCK}.choose"
    assert roles["experts.down"].weight == f"{BLOCK}.second"
    assert roles["experts.down"].experts == EXPERTS
    for role in ("experts.up", "experts.gate"):
        site = roles[role]
        assert (site.weight, site.size("in")) == (f"{BLOCK}.first", WIDTH)
        assert site.transposed
    assert roles["up"].owner == f"{BLOCK}.shared.first.0"
    assert roles["down"].owner == f"{BLOCK}.shared.last"
    assert roles["ffn"].tap
    assert not found.why


@pytest.mark.parametrize("kind", [Beside, InPlace, Scaled])
def test_the_edge_is_the_output_of_no_single_linear(kind: type[Mixture]) -> None:
    """A method on it could else be merged into the shared expert alone."""
    found = told(Model(Routed(kind())))
    (edge,) = (s for s in found.sites if s.role == "ffn")
    assert edge.weight == ""


def test_a_single_channel_has_no_role() -> None:
    found = told(Model(Routed(Scaled())))
    assert found.site(f"{BLOCK}.much:").in_block
