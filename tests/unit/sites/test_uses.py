"""Weights that are used more than once or beside the stream; inputs that are cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peftc.sites.capture import ties
from tests.unit.sites.toys import WIDTH, WORDS, Attend, Feed, Layer, Model, plain, told


class Placed(nn.Module):
    """Scores get a part from a table of positions, by the query's matrix or another."""

    def __init__(self, positions: nn.Parameter, *, shared: bool) -> None:
        super().__init__()
        self.positions, self.parts, self.feed = positions, Attend(), Feed(plain)
        self.other = nn.Linear(WIDTH, WIDTH)
        self.shared = shared

    def forward(self, x: torch.Tensor) -> Any:
        p = self.parts
        key = p.b(x)
        place = (p.a if self.shared else self.other)(self.positions)
        scores = p.a(x) @ key.mT + (key @ place.mT).mT
        x = x + p.d(scores.softmax(-1) @ p.c(x))
        return x + self.feed(x)


def placed(*, shared: bool) -> Model:
    positions = nn.Parameter(torch.randn(8, WIDTH))
    return Model(Placed(positions, shared=shared), Placed(positions, shared=shared))


def test_a_second_use_in_the_same_place_has_the_role_of_the_first() -> None:
    found = told(placed(shared=True))
    q = found.site("layers.1.parts.a:q")
    assert (q.layer, q.calls, q.fused) == (1, 2, False)
    assert "layers.1.parts.a.weight" not in found.why


def test_a_linear_that_one_block_alone_reads_is_in_it() -> None:
    found = told(placed(shared=False))
    others = [site for site in found.sites if site.owner.endswith("other")]
    assert [(s.role, s.layer, s.in_block) for s in others] == [
        ("", 0, True),
        ("", 1, True),
    ]


class Entering(Model):
    """A linear before the first block, which the residual reads as well."""

    def __init__(self) -> None:
        super().__init__(Layer(), Layer())
        self.enter = nn.Linear(WIDTH, WIDTH)

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.enter(self.table(input_ids[:, -5:]))
        for layer in self.layers:
            x = layer(x)
        return self.out(self.final(x))


def test_a_linear_that_the_stream_reads_is_in_no_block() -> None:
    assert not told(Entering()).site("enter:").in_block


def test_an_input_that_is_cut_is_an_input() -> None:
    assert "emb" in {site.role for site in told(Entering()).sites}


class Typed(Model):
    """A table read by a stored row of numbers that are no positions."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(Layer())
        self.kinds = nn.Embedding(3, WIDTH)
        self.row: torch.Tensor
        self.register_buffer("row", torch.zeros(sizes, dtype=torch.long))

    def forward(self, input_ids: torch.Tensor) -> Any:
        count = input_ids.shape[1]
        x = self.table(input_ids) + self.kinds(self.row[..., :count])
        return self.out(self.layers[0](x))


@pytest.mark.parametrize("sizes", [(20,), (1, 20)])
def test_a_stored_row_that_is_cut_is_no_input(sizes: tuple[int, ...]) -> None:
    found = told(Typed(*sizes))
    assert [s.role for s in found.sites if s.kind == "embedding"] == ["emb", ""]


class HeadFirst(nn.Module):
    """A tied head that is registered before its table."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.body = Model(Layer())
        self.head.weight = self.body.table.weight

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.body.layers[0](self.body.table(input_ids))
        return self.head(self.body.final(x))


def test_a_head_before_its_table_is_still_the_head() -> None:
    model = HeadFirst()
    assert ties(model)["head.weight"] == ("body.table.weight", "head.weight")
    owners = {s.role: s.owner for s in told(model).sites if s.role in ("emb", "head")}
    assert owners == {"emb": "body.table", "head": "head"}


class Masked(nn.Module):
    """Post-norm, and padding masked out after each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.feed = Attend(), Feed(plain)
        self.norm, self.other = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm(x + self.attend(x))
        x = self.other(x + self.feed(x))
        return F.dropout(x) * torch.ones(2, 8).unsqueeze(-1)


def test_a_masked_post_norm_is_one() -> None:
    found = told(Model(Masked(), Masked()))
    edges = [s for s in found.sites if s.role in ("attn", "ffn")]
    assert [s.post_norm for s in edges] == [True] * 4
