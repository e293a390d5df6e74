"""Heads that share keys, masks that hide later tokens, tables of positions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from peftc.sites.cores import Cores
from peftc.sites.flow import Flow
from peftc.sites.locate import survey
from peftc.sites.view import model_view
from tests.unit.sites.toys import WIDTH, WORDS, Model, graph_of, told

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = 2
QUERIES = WIDTH // HEAD


class Attend(nn.Module):
    """x + o(mix(q, k, v)) with `shared` heads of keys and values."""

    def __init__(self, mix: Callable[..., torch.Tensor], shared: int = QUERIES) -> None:
        super().__init__()
        self.mix = mix
        self.q, self.o = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, HEAD * shared) for _ in "kv")
        self.bias = nn.Parameter(torch.randn(QUERIES, 5, 5))

    def forward(self, x: torch.Tensor) -> Any:
        q, k, v = (
            linear(x).unflatten(-1, (-1, HEAD)).transpose(1, 2)
            for linear in (self.q, self.k, self.v)
        )
        mixed = self.mix(self, q, k, v)
        return x + self.o(mixed.transpose(1, 2).flatten(2))


def cores(mix: Callable[..., torch.Tensor], shared: int = QUERIES) -> Cores:
    captured = graph_of(Attend(mix, shared))
    found = survey(captured.graph, captured.names)
    return Cores.of(found.found, Flow.of(captured.graph), found.ends)


# --- heads -------------------------------------------------------------------------


def side_by_side(one: torch.Tensor) -> torch.Tensor:
    """Each head repeated, as transformers does it."""
    b, g, t, d = one.shape
    wide = one[:, :, None].expand(b, g, QUERIES // g, t, d)
    return wide.reshape(b, QUERIES, t, d)


def in_turns(one: torch.Tensor) -> torch.Tensor:
    return one.repeat(1, QUERIES // one.shape[1], 1, 1)


def mixed(repeat: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    def mix(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return F.scaled_dot_product_attention(q, repeat(k), repeat(v))

    return mix


def grouped(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def rotated(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    turn = torch.arange(5.0)[:, None]
    q, k = (one * turn.cos() + one.flip(-1) * turn.sin() for one in (q, k))
    scores = q @ side_by_side(k).mT
    return scores.softmax(-1) @ side_by_side(v)


def broadcast(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    return (q @ k.mT).softmax(-1) @ v


def normed(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    k = F.layer_norm(k, (HEAD,))
    return F.scaled_dot_product_attention(q, side_by_side(k), side_by_side(v))


def flat(m: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
    q, k, v = (one.flatten(0, 1) for one in (q, side_by_side(k), side_by_side(v)))
    mixed = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)
    return mixed.unflatten(0, (2, -1))


@pytest.mark.parametrize(
    ("mix", "shared"),
    [
        (mixed(side_by_side), 2),
        (mixed(side_by_side), QUERIES),
        (mixed(side_by_side), 1),
        (grouped, 2),
        (rotated, 2),
        (broadcast, 1),
        (normed, 2),
        (flat, 2),
    ],
)
def test_heads_that_share_keys(mix: Callable[..., torch.Tensor], shared: int) -> None:
    (heads,) = cores(mix, shared).heads.values()
    assert (heads.query, heads.shared) == (QUERIES, shared)
    assert dict(heads.sizes)["key"] == dict(heads.sizes)["value"] == HEAD * shared


def test_an_order_that_is_not_known_is_reported() -> None:
    found = cores(mixed(in_turns), 2)
    assert not found.heads
    (one,) = found.unresolved
    assert "order that is not known" in one.why
    assert one.roles == ("attention",)


# --- masks ---------------------------------------------------------------------------

LOWER = torch.ones(5, 5).tril().bool()


def call(**options: Any) -> Any:
    return lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, **options)


def spelt(scores: Callable[..., torch.Tensor]) -> Any:
    return lambda m, q, k, v: scores(m, q @ k.mT).softmax(-1) @ v


def masked(mask: Callable[[Any], torch.Tensor]) -> Any:
    return lambda m, q, k, v: F.scaled_dot_product_attention(q, k, v, mask(m))


def lower(*, window: int = 9, ahead: int = 0) -> torch.Tensor:
    place = torch.arange(5)
    distance = place[None, :] - place[:, None]
    return (distance <= ahead) & (distance > -window)


def minus(seen: torch.Tensor, low: float = -math.inf) -> torch.Tensor:
    return torch.zeros(5, 5).masked_fill(~seen, low)


CAUSAL = {
    "flag": call(is_causal=True),
    "flags": masked(lambda m: lower()),
    "window": masked(lambda m: lower(window=2)),
    "added": masked(lambda m: minus(lower())),
    "learned-bias": masked(lambda m: m.bias + minus(lower(), -65504.0)),
    "spelt": spelt(lambda m, s: s / 2 + minus(lower())),
    "capped": spelt(lambda m, s: torch.tanh(s / 9) * 9 + minus(lower(), -1e9)),
    "filled": spelt(lambda m, s: s.masked_fill(~lower(), -1e9)),
    "slopes": spelt(lambda m, s: s + torch.arange(5.0) + minus(lower())),
}
OPEN = {
    "all": call(),
    "one-ahead": masked(lambda m: lower(ahead=1)),
    "bias-only": masked(lambda m: m.bias),
    "spelt": spelt(lambda m, s: s / 2),
    "padding": spelt(lambda m, s: s + torch.zeros(2, 1, 1, 5)),
}


@pytest.mark.parametrize("name", CAUSAL)
def test_masks_that_hide_what_comes_later(name: str) -> None:
    assert set(cores(CAUSAL[name]).causal.values()) == {True}


@pytest.mark.parametrize("name", OPEN)
def test_masks_that_do_not(name: str) -> None:
    assert set(cores(OPEN[name]).causal.values()) == {False}


class Stored(nn.Module):
    """A layer whose mask is a buffer of numbers, and one that needs none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Attend(call())
        self.register_buffer("hidden", torch.full((5, 5), -math.inf).triu(1))

    def forward(self, x: torch.Tensor) -> Any:
        hidden: Any = self.hidden
        self.layer.mix = masked(lambda m: hidden)
        return self.layer(x)


def test_a_stored_mask_is_not_read_but_reported() -> None:
    captured = graph_of(Stored())
    found = survey(captured.graph, captured.names)
    told = Cores.of(found.found, Flow.of(captured.graph), found.ends)
    assert list(told.causal.values()) == [True]
    (one,) = told.unresolved
    assert "stored mask" in one.why


class Both(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def test_a_stack_is_causal_if_all_its_layers_are() -> None:
    captured = graph_of(Both(Attend(CAUSAL["flag"]), Attend(OPEN["all"])))
    found = survey(captured.graph, captured.names)
    told = Cores.of(found.found, Flow.of(captured.graph), found.ends)
    sites = [one.located.site for one in found.found]
    assert set(told.causal.values()) == {True, False}
    assert {site.causal for site in told.completed(sites)} == {False}
    assert len(told.heads) == 2


class Towers(nn.Module):
    """A tower whose tokens see later ones, then one whose tokens do not."""

    def __init__(self) -> None:
        super().__init__()
        self.open = Both(Attend(OPEN["all"]), Attend(OPEN["all"]))
        self.causal = Both(Attend(CAUSAL["flag"]), Attend(CAUSAL["flag"]))

    def forward(self, x: torch.Tensor) -> Any:
        return self.open(x), self.causal(x)


def test_each_tower_is_causal_or_not_by_itself() -> None:
    sites = model_view(Towers(), {"x": torch.zeros(2, 5, WIDTH)}).sites
    told = {(site.owner.partition(".")[0], site.causal) for site in sites}
    assert told == {("open", False), ("causal", True)}


# --- positions ---------------------------------------------------------------------


class Positions(Model):
    """Adds rows of tables to the embedded tokens."""

    def __init__(self, *tables: Callable[..., torch.Tensor]) -> None:
        super().__init__(Attend(call()))
        self.indices = tables
        self.tables = nn.ModuleList(nn.Embedding(WORDS, WIDTH) for _ in tables)
        self.register_buffer("numbers", torch.arange(WORDS)[None])
        self.register_buffer("kinds", torch.zeros(1, 2 * WORDS, dtype=torch.long))

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.table(input_ids)
        for table, index in zip(self.tables, self.indices, strict=True):
            x = x + table(index(self, input_ids))
        for layer in self.layers:
            x = layer(x)
        return self.out(self.final(x))


def counted(m: Any, ids: torch.Tensor) -> torch.Tensor:
    return torch.arange(ids.shape[1])[None]


def summed(m: Any, ids: torch.Tensor) -> torch.Tensor:
    return (ids != 0).long().cumsum(-1) - 1 + 2


def stored(m: Any, ids: torch.Tensor) -> torch.Tensor:
    row: torch.Tensor = m.numbers[:, : ids.shape[1]]
    return row


def typed(m: Any, ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(ids)


def typed_by_store(m: Any, ids: torch.Tensor) -> torch.Tensor:
    """A stored row longer than the table counts nothing; positions only pick."""
    places = torch.arange(ids.shape[1]).expand(ids.shape)
    row: torch.Tensor = m.kinds.expand(ids.shape[0], -1).gather(1, places)
    return row


@pytest.mark.parametrize(
    ("index", "role"),
    [
        (counted, "pos"),
        (summed, "pos"),
        (stored, "pos"),
        (typed, ""),
        (typed_by_store, ""),
    ],
)
def test_tables_of_positions(index: Callable[..., torch.Tensor], role: str) -> None:
    sites = told(Positions(index)).sites
    (found,) = (site.role for site in sites if site.weight == "tables.0.weight")
    assert found == role


class Relative(Model):
    """A learned bias by distance, which enters the scores."""

    def __init__(self) -> None:
        super().__init__(Attend(call()))
        self.distances = nn.Embedding(2 * WORDS, QUERIES)

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.table(input_ids)
        place = torch.arange(x.shape[1])
        bias = self.distances(place[None, :] - place[:, None] + WORDS)
        layer: Any = self.layers[0]
        layer.mix = masked(lambda m: bias.permute(2, 0, 1))
        return self.out(self.final(layer(x)))


def test_a_bias_by_distance_is_no_table_of_positions() -> None:
    sites = told(Relative()).sites
    (found,) = (site.role for site in sites if site.weight == "distances.weight")
    assert found == ""
