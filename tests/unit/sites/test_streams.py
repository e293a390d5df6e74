"""Layers where streams lie inside of others, skip some, or mix tokens unknownly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.sites.toys import (
    WIDTH,
    Attend,
    Feed,
    Layer,
    Model,
    plain,
    told,
)


class Narrow(nn.Module):
    """One branch around everything; inside, feed-forwards have their own residuals."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attend, self.feeds = Attend(), nn.ModuleList([Feed(plain), Feed(plain)])

    def forward(self, x: torch.Tensor) -> Any:
        y = self.attend(self.enter(x))
        for feed in self.feeds:
            y = y + feed(y)
        return x + self.leave(y)


def test_a_stream_inside_of_a_branch_is_in_the_layer_of_the_branch() -> None:
    found = told(Model(Narrow(), Narrow()))
    assert found.survey.layers == 2
    for site in found.sites:
        if site.owner.startswith("layers."):
            assert site.layer == int(site.owner.split(".")[1])
    assert found.site("layers.1.feeds.1.last:ffn").tap
    assert found.site("layers.1.attend.a:q").calls == 1
    assert [s.owner for s in found.sites if s.role == "block"] == [
        "layers.0.leave",
        "layers.1.leave",
    ]


def test_an_edge_behind_further_products_is_no_output_of_an_attention() -> None:
    found = told(Model(Narrow()))
    assert "further products" in found.why["attn of layers.0"]
    assert "attn" not in {site.role for site in found.sites}


class Skipping(Model):
    """A sum that skips over the second layer."""

    def forward(self, input_ids: torch.Tensor) -> Any:
        first = self.layers[0](self.table(input_ids))
        x = first + self.layers[1](first)
        return self.out(self.final(self.layers[2](x)))


def test_a_sum_that_skips_over_layers_is_no_sublayer() -> None:
    found = told(Skipping(Layer(), Layer(), Layer()))
    assert [s.layer for s in found.sites if s.role == "ffn"] == [0, 1, 2]
    assert {s.calls for s in found.sites} == {1}


class Mixing(Layer):
    """Mixes tokens by a product of activations without a softmax."""

    def forward(self, x: torch.Tensor) -> Any:
        p, y = self.attend, self.norm(x)
        x = x + p.d((p.a(y) @ p.b(y).mT) @ p.c(y))
        return x + self.feed(self.other(x))


class Transformed(Layer):
    """Mixes tokens by a Fourier transform and a linear."""

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attend.d(torch.fft.fft(self.norm(x), dim=1).real)
        return x + self.feed(self.other(x))


@pytest.mark.parametrize("layer", [Mixing, Transformed])
def test_what_mixes_tokens_unknownly_begins_a_layer_and_is_said(
    layer: type[Layer],
) -> None:
    found = told(Model(layer(), Layer()))
    assert found.survey.layers == 2
    assert [s.layer for s in found.sites if s.role == "ffn"] == [0, 1]
    assert [s.owner for s in found.sites if s.role == "attn"] == ["layers.1.attend.d"]
    assert "mixes tokens" in found.why["a sublayer of layers.0"]


class Pointwise(Layer):
    """A feed-forward of convolutions that see one token only, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.rise, self.fall = nn.Conv1d(WIDTH, 12, 1), nn.Conv1d(12, WIDTH, 1)

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attend(self.norm(x))
        y = x.mT
        return self.other((y + self.fall(self.rise(y).relu())).mT)


def test_a_convolution_over_one_token_begins_no_layer() -> None:
    found = told(Model(Pointwise(), Pointwise()))
    assert found.survey.layers == 2
    assert "ffn of layers.0" in found.why
    assert {s.size("hidden") for s in found.sites if s.kind == "hidden"} == {WIDTH}


class Turned(Layer):
    """An attention whose output is made by a convolution, channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Conv1d(WIDTH, WIDTH, 1)

    def forward(self, x: torch.Tensor) -> Any:
        p, y = self.attend, self.norm(x)
        mixed = F.scaled_dot_product_attention(p.a(y), p.b(y), p.c(y))
        x = (x.mT + self.last(mixed.mT)).mT
        return x + self.feed(self.other(x))


def test_an_edge_whose_channels_come_first_is_said() -> None:
    found = told(Model(Turned()), tokens=5)
    assert "not the last axis" in found.why["attn of layers.0"]


class TurnedNorm(nn.Module):
    """A post-norm layer whose stream has its channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.attend, self.feed = Attend(), Feed(plain)
        self.norm, self.other = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.norm((self.attend(x).mT + x.mT).mT)
        return self.other((self.feed(x).mT + x.mT).mT)


def test_a_norm_behind_a_transposed_sum_is_a_post_norm() -> None:
    found = told(Model(TurnedNorm(), TurnedNorm()))
    norms = {s.owner: s.layer for s in found.sites if s.role == "norm"}
    assert norms["layers.1.norm"] == 1
    assert norms["layers.0.other"] == 0
    assert found.site("layers.0.feed.last:block").size("hidden") == WIDTH
