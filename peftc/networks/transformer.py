"""Ladder-side tuning: a narrow transformer of the backbone's own class beside it.

In: a backbone, the layers it reads and the options of a `network transformer(...)`.
Out: a network in which the values of layer i enter a narrow layer of the same class:

    g_0 = down_0(embedded)
    u_i = mu_i g_(i-1) + (1 - mu_i) down_i(b_i),  g_i = layer_i(u_i)
    out = up(norm(g_last))

The narrow model is a whole one: masks, rotations and caches are those of its class.
What it would do with tokens or positions before its first layer is not read.

b samples, t tokens, d the backbone's width, n the narrow one.
"""

from __future__ import annotations

import copy
import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import unset_fake_temporarily

from peftc.diagnostics.core import fail
from peftc.diagnostics.networks import IdleOption, NoSideNetwork
from peftc.networks.interface import SideNetwork, widths
from peftc.networks.pruning import Pruning, taken
from peftc.networks.reduction import reduced, rotates

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.networks.interface import Beside, Seen
    from peftc.networks.pruning import Frozen, Indices

TEMPERATURE = 0.1
"""Of gates, if nothing is said."""
DEVIATION = 0.02
"""Of initial matrices, where the backbone's configuration does not tell."""


class Rungs:
    """What is mixed into the narrow layers of a run under way."""

    def __init__(self) -> None:
        self.states: tuple[torch.Tensor, ...] | None = None


class Transformer(SideNetwork):
    """The narrow transformer, with what leads to it and back."""

    def __init__(self, beside: Beside) -> None:
        super().__init__(beside)
        options = beside.options
        _check_options(options)
        config = reduced(beside, options["reduction"])
        width, out = widths(beside)
        narrow = config.hidden_size
        self.body = _body(beside, config)
        self.layers = beside.layers[0].rpartition(".")[0]
        self.down = nn.ModuleList(
            nn.Linear(width, narrow) for _ in range(len(beside.layers) + 1)
        )
        self.up = nn.Linear(narrow, out)
        self.options = options
        self.deviation = getattr(config, "initializer_range", None) or DEVIATION
        if options["gate"] == "learned":
            self.gates = nn.Parameter(torch.zeros(len(beside.layers)))
        if options["blend"]:
            self.last_gate = nn.Parameter(torch.zeros(()))
        self.rungs = Rungs()
        self.beside = beside
        self.kept: Mapping[str, Indices] | None = None
        for index, layer in enumerate(self.body.get_submodule(self.layers)):
            layer.register_forward_pre_hook(Rung(self, index), with_kwargs=True)

    def forward(self, seen: Seen) -> torch.Tensor:
        """[b, t, out] in the dtype of `seen.last`."""
        dtype = self.up.weight.dtype
        self.rungs.states = tuple(b.to(dtype) for b in (seen.embedded, *seen.blocks))
        given = self.body(
            inputs_embeds=self.down[0](self.rungs.states[0]),
            **_passed(self.body, seen),
        )
        self.rungs.states = None
        out = self.up(given.last_hidden_state)
        return self._blended(out, seen.last.to(dtype)).to(seen.last.dtype)

    def _blended(self, out: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        if self.options["identity_init"]:
            return out + last
        if self.options["blend"]:
            share = torch.sigmoid(self.last_gate / self.options["gate_T"])
            return share * out + (1 - share) * last
        return out

    def mixed(self, index: int, before: torch.Tensor) -> torch.Tensor:
        """u_i: what the narrow layer reads, `before` being what the last one gave."""
        states = self.rungs.states
        assert states is not None
        if index == 0:
            before = self.down[0](states[0])
        read: torch.Tensor = self.down[index + 1](states[index + 1])
        if self.options["gate"] != "learned":
            return before + read
        share = torch.sigmoid(self.gates[index] / self.options["gate_T"])
        return share * before + (1 - share) * read

    @functools.cached_property
    def constants(self) -> dict[str, str]:
        """What the backbone's class fills with one number, by plain names."""
        with unset_fake_temporarily(), torch.random.fork_rng(devices=[]):
            return _constants(_body(self.beside, _short(self.body.config)))

    def initial(self, name: str) -> str:
        """Matrices of the layers are drawn, gains are what the class makes them."""
        if name.startswith("up.") and self.options["identity_init"]:
            return "0"
        if name.startswith(("up.", "down.")):
            return "kaiming(5)" if name.endswith("weight") else "0"
        if not name.startswith("body."):
            return "0"
        if self.options["init"] != "random":
            return str(self.options["init"])
        inner = _plain(name.removeprefix("body."))
        return self.constants.get(inner, f"normal({self.deviation})")

    def taken(self, name: str, how: str, frozen: Frozen) -> torch.Tensor:
        """The rows and columns of the backbone's weights that weigh most."""
        path = name.removeprefix("body.")
        row, inner = f"{self.layers}.", path.removeprefix(f"{self.layers}.")
        if path.startswith(row):
            number, _, rest = inner.partition(".")
            path = f"{self.beside.layers[int(number)]}.{rest}"
        path = frozen.prefix + path
        if self.kept is None:
            layers = tuple(frozen.prefix + layer for layer in self.beside.layers)
            turned = rotates(self.beside.config)
            reduction = self.options["reduction"]
            self.kept = Pruning(frozen, layers, reduction, turned).indices()
        if path not in self.kept:
            reason = f"no site tells which part of `{path}` to start from"
            raise fail(
                NoSideNetwork(model=self.beside.model_class.__name__, reason=reason)
            )
        return taken(frozen.value(path), self.kept[path])

    def caches(self, like: Any) -> list[Any]:
        """Layers as those of the backbone's cache."""
        from transformers import DynamicCache, StaticCache
        from transformers.cache_utils import StaticLayer

        if any(isinstance(layer, StaticLayer) for layer in like.layers):
            return StaticCache(self.body.config, like.max_cache_len).layers
        return DynamicCache(config=self.body.config).layers


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that the others leave without effect."""
    if options["identity_init"] and options["blend"]:
        why = "with `identity_init` the network is added to the backbone"
        raise fail(IdleOption(name="blend", why=why))
    gates = options["gate"] == "learned" or options["blend"]
    if not gates and options["gate_T"] != TEMPERATURE:
        raise fail(IdleOption(name="gate_T", why="there is no gate"))


class Rung:
    """A hook before a narrow layer; a class, so that models can be pickled."""

    def __init__(self, network: Transformer, index: int) -> None:
        self.network = network
        self.index = index

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Put what the backbone computed into what the layer reads."""
        if args:
            return (self.network.mixed(self.index, args[0]), *args[1:]), kwargs
        name = "hidden_states"
        return args, {**kwargs, name: self.network.mixed(self.index, kwargs[name])}


def _body(beside: Beside, config: Any) -> Any:
    """The narrow model, without what is behind its last norm."""
    model_class = beside.model_class
    try:
        body = model_class(config)
    except Exception as error:
        # The constructors of models raise what they like on sizes they do not take.
        reason = f"a narrow one cannot be made: {error}"
        raise fail(NoSideNetwork(model=model_class.__name__, reason=reason)) from error
    if getattr(body, "pooler", None) is not None:
        body.pooler = None
    return body


_PASSED = ("attention_mask", "position_ids", "token_type_ids")


def _passed(body: Any, seen: Seen) -> dict[str, Any]:
    """The arguments of the backbone's call that the narrow model gets too."""
    accepted = inspect.signature(type(body).forward).parameters
    given = {n: seen.call[n] for n in _PASSED if seen.call.get(n) is not None}
    if seen.cache is not None:
        given["past_key_values"] = seen.cache
    given = {n: v for n, v in given.items() if n in accepted}
    if "use_cache" in accepted:
        given["use_cache"] = seen.cache is not None
    return given


def _plain(name: str) -> str:
    """A parameter's name without the numbers of layers."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _constants(body: Any) -> dict[str, str]:
    """The values of the parameters of a model that are one number, by plain names."""
    return {
        _plain(name): f"{parameter.flatten()[0].item():g}"
        for name, parameter in body.named_parameters()
        if (parameter == parameter.flatten()[0]).all()
    }


def _short(config: Any) -> Any:
    """The configuration of a model with the first layer only."""
    short = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(short, name, value[:1])
    short.num_hidden_layers = 1
    return short
