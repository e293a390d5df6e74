"""Small models put together from parts, for tests of one dataflow at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import nn

from peftc.sites.capture import capture, ties
from peftc.sites.locate import survey

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.sites.capture import Captured
    from peftc.sites.locate import Survey
    from peftc.view import Site

WIDTH, INNER, HEADS, WORDS = 8, 12, 2, 20


def graph_of(model: nn.Module, *shape: int) -> Captured:
    """Capture a module that takes one float tensor `x`."""
    return capture(model.eval(), {"x": torch.zeros(shape or (2, 5, WIDTH))})


class Function(nn.Module):
    """A forward over named parameters."""

    def __init__(self, forward: Callable[..., Any], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = forward
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape)))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self, x)


def split_heads(x: torch.Tensor) -> Any:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def merge_heads(x: torch.Tensor) -> torch.Tensor:
    return x.transpose(1, 2).flatten(2)


class Attend(nn.Module):
    """Self-attention, or attention to `memory`."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in "abcd")

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None = None) -> Any:
        seen = x if memory is None else memory
        q, k, v = self.a(x), self.b(seen), self.c(seen)
        q, k, v = split_heads(q), split_heads(k), split_heads(v)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.d(merge_heads(mixed))


class Feed(nn.Module):
    """A feed-forward by a function of a module with linears `a`, `b`, `c`."""

    def __init__(self, function: Callable[..., Any], widths: str = "ab") -> None:
        super().__init__()
        self.function = function
        sizes = {"a": (WIDTH, INNER), "b": (WIDTH, INNER), "2": (WIDTH, 2 * INNER)}
        self.first = nn.ModuleList(nn.Linear(*sizes[w]) for w in widths[:-1])
        self.last = nn.Linear(INNER, WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.function(x, *self.first))


def plain(x: torch.Tensor, up: nn.Module) -> torch.Tensor:
    return F.gelu(up(x))


class Layer(nn.Module):
    """A pre-norm layer; subclasses put the same parts together otherwise."""

    def __init__(self, feed: Callable[..., Any] = plain, widths: str = "ab") -> None:
        super().__init__()
        self.attend = Attend()
        self.feed = Feed(feed, widths)
        self.norm, self.other = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attend(self.norm(x))
        return x + self.feed(self.other(x))


class Model(nn.Module):
    """Tokens to logits through layers."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.final = nn.LayerNorm(WIDTH)
        self.out = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, input_ids: torch.Tensor) -> Any:
        x = self.table(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.final(x))


@dataclass(frozen=True)
class Told:
    """What was told of a model."""

    survey: Survey

    @property
    def sites(self) -> list[Site]:
        return [found.located.site for found in self.survey.found]

    @property
    def keys(self) -> list[str]:
        return [site.key for site in self.sites]

    def site(self, key: str) -> Site:
        return next(site for site in self.sites if site.key == key)

    @property
    def why(self) -> dict[str, str]:
        return {u.what: u.why for u in self.survey.unresolved}


def told(model: nn.Module, tokens: int = 0) -> Told:
    """The survey of a model of tokens; as many as capture takes if not said."""
    given = {"input_ids": torch.ones(2, tokens, dtype=torch.long)} if tokens else None
    captured = capture(model.eval(), given)
    return Told(survey(captured.graph, captured.names, ties(model)))
