"""What a side network is.

In: a class that derives from `SideNetwork`, peftc's own or an installed package's.
Out: its trained tensors, found on tensors without values, and its forward, which reads
what the backbone computed and never the backbone's parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from peftc.diagnostics.core import fail
from peftc.diagnostics.networks import NoSideNetwork

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.networks.pruning import Frozen

SAMPLES, TOKENS = 2, 5
"""Sizes of the made-up activations on which a network is tried."""


@dataclass(frozen=True)
class Beside:
    """What a network stands beside, without its values.

    The backbone is of `model_class` with `config`; `layers` are those of its `depth`
    layers whose outputs the network reads, as paths in the backbone; `options` are the
    statement's.
    """

    model_class: type[Any]
    config: Any
    layers: tuple[str, ...]
    depth: int
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """What the backbone computed, without its history: b samples, t tokens.

    `embedded` [b, t, d] is what its first layer reads, `blocks` [b, t, d] what each of
    the layers gives, `last` [b, t, out] what the backbone gives.  `call` are the
    arguments it was called with, by name; `cache` holds the network's own keys and
    values, None if nothing is cached.
    """

    embedded: torch.Tensor
    blocks: tuple[torch.Tensor, ...]
    last: torch.Tensor
    call: Mapping[str, Any]
    cache: Any = None


class SideNetwork(nn.Module, ABC):
    """A network beside a backbone; its parameters are what a method trains."""

    @abstractmethod
    def __init__(self, beside: Beside) -> None:
        """Make the network; the values of its parameters do not matter.

        The backbone's sizes and classes may be read, its values may not be there.
        """
        super().__init__()

    @abstractmethod
    def forward(self, seen: Seen) -> torch.Tensor:
        """What the model's head reads in place of `seen.last`, of the same shape."""

    @abstractmethod
    def initial(self, name: str) -> str:
        """The text of a parameter's initial value: `0`, `normal(0.02)`, a name of
        values that `taken` gives."""

    def taken(self, name: str, how: str, frozen: Frozen) -> torch.Tensor:
        """The values of a parameter that start from the backbone's, said by `how`."""
        raise NotImplementedError(f"`{how}` of `{name}` is not known")

    def caches(self, like: Any) -> list[Any]:
        """Layers for a cache of the kind that the backbone is run with."""
        return []

    def take(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Have these parameters, and zeros for all others: they take no part."""
        for name, parameter in list(self.named_parameters()):
            path, _, leaf = name.rpartition(".")
            owner = self.get_submodule(path)
            if name in tensors:
                owner._parameters[leaf] = nn.Parameter(tensors[name])
            else:
                del owner._parameters[leaf]
                zero = parameter.new_zeros((1,) * parameter.ndim, requires_grad=False)
                zeros = zero.expand(parameter.shape)
                owner.register_buffer(leaf, zeros, persistent=False)


@dataclass(frozen=True)
class Trained:
    """A trained tensor of a network: its name, shape and initial value."""

    name: str
    shape: tuple[int, ...]
    init: str


def trained(network: type[SideNetwork], beside: Beside) -> tuple[Trained, ...]:
    """The tensors of a network that what it gives depends on.

    Nothing is allocated: it is made and run on tensors without values.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), torch.enable_grad():
        made = network(beside)
        given = _tried(made, beside)
        named = dict(made.named_parameters())
        gradients = torch.autograd.grad(
            given.sum(), list(named.values()), allow_unused=True
        )
    pairs = zip(named.items(), gradients, strict=True)
    return tuple(
        Trained(name, tuple(parameter.shape), made.initial(name))
        for (name, parameter), gradient in pairs
        if gradient is not None
    )


def _tried(made: SideNetwork, beside: Beside) -> torch.Tensor:
    """What a network gives for made-up values."""
    try:
        given: torch.Tensor = made(_example(beside))
    except Exception as error:
        # The forwards of models raise what they like on what they do not take.
        reason = f"a network beside it does not run: {error}"
        name = beside.model_class.__name__
        raise fail(NoSideNetwork(model=name, reason=reason)) from error
    return given


def _example(beside: Beside) -> Seen:
    width, out = widths(beside)
    state = torch.zeros(SAMPLES, TOKENS, width)
    blocks = tuple(state.clone() for _ in beside.layers)
    return Seen(state, blocks, torch.zeros(SAMPLES, TOKENS, out), {})


def widths(beside: Beside) -> tuple[int, int]:
    """The width of the residual stream, and of what the backbone gives."""
    config = beside.config
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int):
        reason = "its configuration tells no `hidden_size`"
        raise fail(NoSideNetwork(model=beside.model_class.__name__, reason=reason))
    return width, getattr(config, "word_embed_proj_dim", None) or width
