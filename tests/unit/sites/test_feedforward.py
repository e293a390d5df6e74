"""Gate, up and down: by what goes through the nonlinearity, whatever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from tests.unit.sites.toys import Layer, Model, plain, told

if TYPE_CHECKING:
    from collections.abc import Callable

UP, GATE, DOWN = "layers.0.feed.first.0", "layers.0.feed.first.1", "layers.0.feed.last"


def roles(function: Callable[..., Any], widths: str) -> dict[str, set[str]]:
    """The roles of the linears of the feed-forward, by their owner."""
    found: dict[str, set[str]] = {}
    for site in told(Model(Layer(function, widths))).sites:
        if ".feed." in site.key and site.kind == "linear" and not site.fused:
            found.setdefault(site.owner, set()).add(site.role)
    return found


def gelu_by_hand(x: Any, up: Any) -> Any:
    y = up(x)
    return 0.5 * y * (1.0 + torch.tanh(0.8 * (y + 0.04 * torch.pow(y, 3.0))))


def normed(x: Any, up: Any) -> Any:
    y = F.relu(up(x))
    return F.layer_norm(y, y.shape[-1:])


PLAIN = {
    "gelu": plain,
    "no activation": lambda x, up: up(x),
    "gelu by hand": gelu_by_hand,
    "quick gelu": lambda x, up: (lambda y: y * torch.sigmoid(1.702 * y))(up(x)),
    "squared relu": lambda x, up: torch.square(F.relu(up(x))),
    "dropout": lambda x, up: F.dropout(F.relu(up(x)), 0.1, training=True),
    "normed": normed,
}


@pytest.mark.parametrize("name", PLAIN)
def test_two_matrices(name: str) -> None:
    assert roles(PLAIN[name], "ab") == {UP: {"up"}, DOWN: {"down"}}


GATED = {
    "swiglu": lambda x, up, gate: F.silu(gate(x)) * up(x),
    "other order": lambda x, up, gate: up(x) * F.gelu(gate(x)),
    "by hand": lambda x, up, gate: (lambda g: g * torch.sigmoid(g))(gate(x)) * up(x),
    "scaled": lambda x, up, gate: torch.tanh(gate(x) * 2) * (up(x) / 3 + 1),
    "dropout": lambda x, up, gate: F.dropout(F.silu(gate(x)) * up(x), 0.1),
    "clamped": lambda x, up, gate: F.silu(gate(x).clamp(max=7)) * up(x).clamp(-7, 7),
    "cut at zero": lambda x, up, gate: gate(x).clamp(min=0) * up(x),
    "cast": lambda x, up, gate: F.silu(gate(x).double()).to(x.dtype) * up(x),
}


@pytest.mark.parametrize("name", GATED)
def test_three_matrices(name: str) -> None:
    assert roles(GATED[name], "aab") == {UP: {"up"}, GATE: {"gate"}, DOWN: {"down"}}


def chunked(x: Any, both: Any) -> Any:
    gate, up = both(x).chunk(2, -1)
    return F.silu(gate) * up


def interleaved(x: Any, both: Any) -> Any:
    y = both(x)
    return (y[..., 1::2] + 1) * (y[..., ::2] * torch.sigmoid(y[..., ::2]))


def viewed(x: Any, both: Any) -> Any:
    y = both(x).unflatten(-1, (2, -1))
    return y[..., 0, :] * F.gelu(y[..., 1, :])


@pytest.mark.parametrize("function", [chunked, interleaved, viewed])
def test_a_fused_gate(function: Callable[..., Any]) -> None:
    assert roles(function, "2b") == {UP: {"up", "gate"}, DOWN: {"down"}}


UNTOLD: dict[str, tuple[Callable[..., Any], str]] = {
    "bilinear": (lambda x, a, b: a(x) * b(x), "aab"),
    "both bent": (lambda x, a, b: F.relu(a(x)) * torch.tanh(b(x)), "aab"),
    "a sum": (lambda x, a, b: F.relu(a(x)) + b(x), "aab"),
    "three": (lambda x, a, b, c: F.relu(a(x)) * b(x) * c(x), "aaab"),
    "pooled": (lambda x, a: F.relu(a(x)).mean(1, keepdim=True).expand(-1, 8, -1), "ab"),
    "sorted": (lambda x, a: a(x).sort(-1)[0], "ab"),
}


@pytest.mark.parametrize("name", UNTOLD)
def test_what_is_not_told_is_said(name: str) -> None:
    function, widths = UNTOLD[name]
    found = told(Model(Layer(function, widths)))
    feed = [s for s in found.sites if ".feed." in s.key and s.kind == "linear"]
    assert {site.role for site in feed} == {""}
    assert all(site.in_block and site.layer == 0 for site in feed)
    assert found.why["ffn of layers.0"]
    assert [s.role for s in found.sites if s.kind == "hidden"] == ["attn", "block"]
