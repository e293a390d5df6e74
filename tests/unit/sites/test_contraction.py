"""Attentions written as `einsum`, and products with several matrices put together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from peftc.sites.view import model_view
from tests.unit.sites.toys import HEADS, WIDTH, WORDS, Layer, Model, told

if TYPE_CHECKING:
    from peftc.view import Site


class Contracting(Layer):
    """Scores and mixture by two equations."""

    scores, mixture = "bhic,bhcj->bhij", "bhij,bhjc->bhic"

    def forward(self, x: torch.Tensor) -> Any:
        p, y = self.attend, self.norm(x)
        q, k, v = (self.heads(part(y)) for part in (p.a, p.b, p.c))
        mixed = self.mixed(q, k, v)
        x = x + p.d(self.merged(mixed))
        return x + self.feed(self.other(x))

    def heads(self, x: torch.Tensor) -> Any:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)

    def merged(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(2)

    def mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = torch.einsum(self.scores, q, k.mT).softmax(-1)
        return torch.einsum(self.mixture, weights, v)


class Tupled(Contracting):
    """The operands as one tuple."""

    def mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = torch.einsum(self.scores, (q, k.mT)).softmax(-1)
        return torch.einsum(self.mixture, (weights, v))


class Untransposed(Contracting):
    """Tokens before heads throughout; the value before its weights."""

    def heads(self, x: torch.Tensor) -> Any:
        return x.unflatten(-1, (HEADS, -1))

    def merged(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2)

    def mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        weights = torch.einsum("bjhc,bihc->bhij", k, q).softmax(-1)
        return torch.einsum("bjhc,bhij->bihc", v, weights)


class Relative(Untransposed):
    """A second product of queries, with positions that no input enters."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(8, HEADS, WIDTH // HEADS))

    def mixed(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        places = self.places * torch.arange(8).view(8, 1, 1)
        scores = torch.einsum("bihc,bjhc->bhij", q, k)
        scores = scores + torch.einsum("bihc,jhc->bhij", q, places)
        return torch.einsum("bhij,bjhc->bihc", scores.softmax(-1), v)


@pytest.mark.parametrize("layer", [Contracting, Tupled, Untransposed, Relative])
def test_the_linears_of_an_einsum_have_their_roles(layer: type[Layer]) -> None:
    found = told(Model(layer(), layer()))
    by_role = {s.role: s.owner for s in found.sites if s.layer == 1}
    wanted = {
        role: f"layers.1.attend.{letter}"
        for role, letter in zip("qkvo", "abcd", strict=True)
    }
    assert wanted.items() <= by_role.items()


def cores(model: nn.Module) -> list[Site]:
    return [site for site in model_view(model.eval()).sites if site.kind == "attention"]


@pytest.mark.parametrize("layer", [Contracting, Tupled])
def test_an_einsum_that_is_a_matmul_is_an_attention(layer: type[Layer]) -> None:
    (core,) = cores(Model(layer()))
    assert (core.size("heads"), core.size("key"), core.causal) == (HEADS, WIDTH, False)


def test_an_einsum_of_another_form_is_said() -> None:
    model = Model(Untransposed())
    assert cores(model) == []
    assert "no axis" in told(model).why["attention of layers.0"]


class Wide(Model):
    """A head of two matrices, one of them the table."""

    def __init__(self) -> None:
        super().__init__(Layer())
        self.out = nn.Linear(2 * WIDTH, WORDS)
        self.more = nn.Parameter(torch.randn(WIDTH, WORDS))

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.layers[0](self.table(input_ids))
        matrix = torch.cat([self.table.weight.t(), self.more])
        return torch.cat([x, x], -1) @ matrix + self.out.bias


def test_a_head_of_two_matrices_is_said() -> None:
    found = told(Wide())
    assert "head" in found.why
    assert "head" not in {site.role for site in found.sites}


class Stating(Model):
    """The last state beside the logits."""

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.final(self.layers[0](self.table(input_ids)))
        return self.out(x), x


def test_a_tied_head_beside_the_states_is_no_pooler() -> None:
    model = Stating(Layer())
    assert "head" not in {site.role for site in told(model).sites}
    model.out.weight = model.table.weight
    assert "out:head" in told(model).keys
