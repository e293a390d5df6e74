"""Where a network can stand beside a model.

In: a model and the sites that the dataflow told.  Out: `Sides`: for each stack whose
layers are modules in one row, a site that names them, and what makes the tensors of a
network there.  Nothing of the model is kept but its classes and configurations.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from peftc.diagnostics.core import fail
from peftc.diagnostics.networks import NoSideNetwork
from peftc.expr.networks import networks
from peftc.networks.interface import Beside, trained
from peftc.view import Site

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn


@dataclass(frozen=True)
class Sides:
    """The sites, and what each stands beside."""

    sites: tuple[Site, ...] = ()
    backbones: tuple[Beside, ...] = ()

    @staticmethod
    def of(model: nn.Module, sites: Sequence[Site]) -> Sides:
        """Those of a model whose sites these are."""
        found = list(_sides(model, sites))
        beside = (backbone_of(model, site.taps) for site in found)
        return Sides(tuple(found), tuple(beside))

    def __call__(
        self, site: Site, builder: str, options: Mapping[str, Any]
    ) -> list[tuple[str, tuple[int, ...], str]]:
        """The name, shape and initial value of each tensor of a network at a site."""
        if len(self.sites) > 1:
            reason = "it has several stacks of layers"
            name = self.backbones[0].model_class.__name__
            raise fail(NoSideNetwork(model=name, reason=reason))
        at = [one.key for one in self.sites].index(site.key)
        prefix = _prefix(self.backbones[at], self.sites[at])
        layers = tuple(path.removeprefix(prefix) for path in site.taps)
        beside = replace(self.backbones[at], layers=layers, options=options)
        told = trained(resolve_name(networks()[builder].code), beside)
        return [(one.name, one.shape, one.init) for one in told]


def _prefix(beside: Beside, site: Site) -> str:
    """What the paths of a site's layers have before those in the backbone."""
    return site.taps[0].removesuffix(beside.layers[0])


def _sides(model: nn.Module, sites: Sequence[Site]) -> Iterator[Site]:
    stacks: dict[str, dict[int, list[Site]]] = defaultdict(lambda: defaultdict(list))
    for site in sites:
        if site.layer is not None and site.kind == "linear":
            stacks[site.stack][site.layer].append(site)
    for layers in stacks.values():
        taps = tuple(_module(at) for _, at in sorted(layers.items()))
        if _in_a_row(taps) and (path := backbone_path(model, taps[0])) is not None:
            first = sites[0]
            yield Site(
                key=f"{taps[0].rpartition('.')[0]}:side",
                role="side",
                kind="side",
                owner=path or taps[0],
                sizes=(),
                dtype=first.dtype,
                stack=layers[0][0].stack,
                in_block=False,
                taps=taps,
            )


def _module(sites: Sequence[Site]) -> str:
    """The module that holds all linears of a layer: up to the last number in common."""
    paths = [site.owner.split(".") for site in sites]
    same = [parts[0] for parts in zip(*paths, strict=False) if len(set(parts)) == 1]
    while same and not same[-1].isdigit():
        same.pop()
    return ".".join(same)


def _in_a_row(taps: Sequence[str]) -> bool:
    """Whether modules are the elements of one list, in its order."""
    rows = [path.rpartition(".") for path in taps]
    return all(
        row == rows[0][0] and row and last == str(number)
        for number, (row, _, last) in enumerate(rows)
    )


def backbone_path(model: nn.Module, layer: str) -> str | None:
    """The innermost model of Transformers around a layer; "" is the model itself."""
    modules = dict(model.named_modules())
    path = layer if layer in modules else ""
    while path:
        path = path.rpartition(".")[0]
        if isinstance(modules.get(path), PreTrainedModel):
            return path
    return None


def backbone_at(model: nn.Module, layer: str) -> nn.Module:
    """The module at the path of the backbone around a layer."""
    path = backbone_path(model, layer)
    assert path is not None
    return model.get_submodule(path)


def backbone_of(model: nn.Module, taps: Sequence[str]) -> Beside:
    """What a network that reads these layers stands beside."""
    path = backbone_path(model, taps[0])
    assert path is not None
    backbone: Any = model.get_submodule(path)
    layers = tuple(tap.removeprefix(f"{path}." if path else "") for tap in taps)
    depth = len(list(model.get_submodule(taps[0].rpartition(".")[0]).children()))
    return Beside(type(backbone), copy.deepcopy(backbone.config), layers, depth, {})
