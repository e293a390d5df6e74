"""A side network in a model: the backbone runs without gradients, the network beside.

In: a model whose plan puts a network beside its backbone, with its tensors.  Out: a
forward for the backbone, in which the network's output stands for what the backbone
gives, so that the head, its loss and `generate()` are the model's own.

Values of the backbone are read by hooks on its layers, which do nothing unless a
forward with the network is under way.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

from peftc.networks.interface import Seen
from peftc.runtime.networks import installed
from peftc.sites.sides import backbone_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import nn

    from peftc.networks.interface import SideNetwork
    from peftc.plan.types import Plan, Rewrite
    from peftc.runtime.entry import Entry


class Taps:
    """Where the hooks put what they read, while a forward is under way."""

    def __init__(self) -> None:
        self.embedded: torch.Tensor | None = None
        self.blocks: list[torch.Tensor] | None = None


class BlockTap:
    """A hook behind a layer that is read; a class, so that models can be pickled."""

    def __init__(self, taps: Taps) -> None:
        self.taps = taps

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        """Note what the layer gives."""
        if self.taps.blocks is not None:
            value = output if isinstance(output, torch.Tensor) else output[0]
            self.taps.blocks.append(value.detach())


class FirstTap:
    """A hook before the first layer."""

    def __init__(self, taps: Taps) -> None:
        self.taps = taps

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Note what the layer reads."""
        if self.taps.blocks is not None:
            value = args[0] if args else kwargs["hidden_states"]
            self.taps.embedded = value.detach()


class WithNetwork:
    """The forward of a backbone with a network beside it.

    `previous` is the forward that the instance had of its own, if any.
    """

    def __init__(
        self, backbone: nn.Module, network: SideNetwork, taps: Taps, depth: int
    ) -> None:
        self.backbone = backbone
        self.network = network
        self.taps = taps
        self.depth = depth
        self.previous: Callable[..., Any] | None = backbone.__dict__.get("forward")
        signature = inspect.signature(type(backbone).forward)
        self.names = tuple(signature.parameters)[1:]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the backbone gives, with the network's output for its own."""
        call = {**dict(zip(self.names, args, strict=False)), **kwargs}
        self.taps.blocks = []
        with torch.no_grad():
            given = self._alone(*args, **kwargs)
        return self._replaced(given, self.network(self._seen(given, call)))

    def _alone(self, *args: Any, **kwargs: Any) -> Any:
        if self.previous is not None:
            return self.previous(*args, **kwargs)
        # A bound method cannot be captured.
        return type(self.backbone).forward(self.backbone, *args, **kwargs)

    def _seen(self, given: Any, call: dict[str, Any]) -> Seen:
        embedded, blocks = self.taps.embedded, self.taps.blocks
        assert embedded is not None
        assert blocks is not None
        self.taps.embedded = self.taps.blocks = None
        cache = getattr(given, "past_key_values", None)
        view = None if cache is None else self._view(cache)
        return Seen(embedded, tuple(blocks), given[0].detach(), call, view)

    def _view(self, cache: Any) -> Any:
        """The network's layers of a cache, behind those of the backbone."""
        if len(cache.layers) == self.depth:
            cache.layers.extend(self.network.caches(cache))
        return Cache(layers=cache.layers[self.depth :])

    def _replaced(self, given: Any, state: torch.Tensor) -> Any:
        """What the backbone gave, with another last state, pooled again."""
        if isinstance(given, tuple):
            return (state, *given[1:])
        values = {**dict(given.items()), "last_hidden_state": state}
        if values.get("pooler_output") is not None:
            pooler: Any = self.backbone.pooler
            values["pooler_output"] = pooler(state)
        return type(given)(**values)


def connect(model: nn.Module, plan: Plan, entries: Iterable[Entry]) -> None:
    """Let the forwards of backbones run with the networks that a plan puts there."""
    by_module = {id(entry.module): entry for entry in entries}
    for rewrite in plan.rewrites:
        if rewrite.site.kind == "side":
            backbone = backbone_at(model, rewrite.site.taps[0])
            entry = by_module[id(backbone)]
            entry.beside = _forward(model, rewrite, backbone)


def _forward(model: nn.Module, rewrite: Rewrite, backbone: nn.Module) -> WithNetwork:
    site, taps = rewrite.site, Taps()
    row = model.get_submodule(site.taps[0].rpartition(".")[0])
    layers = list(row.children())
    layers[0].register_forward_pre_hook(FirstTap(taps), with_kwargs=True)
    for path in site.taps:
        model.get_submodule(path).register_forward_hook(BlockTap(taps))
    network = installed(model, site, rewrite.applications[0])
    return WithNetwork(backbone, network, taps, len(layers))


def disconnect(model: nn.Module, entries: Iterable[Entry]) -> None:
    """Take the hooks back; the entries run their backbones alone."""
    for entry in entries:
        entry.beside = None
    for module in model.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key, hook in list(hooks.items()):
                if isinstance(hook, BlockTap | FirstTap):
                    del hooks[key]
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
