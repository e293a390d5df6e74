"""Side networks of a plan, made for a model.

In: a model, and an application at a side.  Out: its network, and the first values of
those of its tensors that start from the backbone's.
"""

from __future__ import annotations

from dataclasses import replace
from pkgutil import resolve_name
from typing import TYPE_CHECKING

import torch

from peftc.expr.networks import networks
from peftc.networks.pruning import Frozen
from peftc.plan.beside import network_of
from peftc.runtime.names import attribute, role_name
from peftc.sites.sides import backbone_of, backbone_path
from peftc.sites.view import model_view

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from peftc.networks.interface import SideNetwork
    from peftc.plan.types import AddedTensor, Application, Rewrite
    from peftc.runtime.initial import Evaluate
    from peftc.syntax.ast import Method
    from peftc.view import Site


def network_at(
    model: nn.Module,
    rewrite: Rewrite,
    application: Application,
    methods: Mapping[str, Method],
) -> SideNetwork:
    """The network of an application; its parameters have no values of note."""
    network = network_of(application, rewrite.site, methods)
    code = resolve_name(networks()[network.builder].code)
    beside = backbone_of(model, rewrite.site.taps)
    with torch.random.fork_rng(devices=[]):
        made: SideNetwork = code(replace(beside, options=network.options))
    return made


def own_name(tensor: AddedTensor) -> str:
    """The name that a network has for one of its tensors."""
    return tensor.name.partition(".")[2]


def taken(model: nn.Module, site: Site, network: SideNetwork) -> Evaluate:
    """What gives the first values that are taken from the backbone."""
    path = backbone_path(model, site.taps[0])
    prefix = f"{path}." if path else ""
    known: list[Frozen] = []

    def value(tensor: AddedTensor, _: torch.Generator) -> torch.Tensor:
        if not known:
            known.append(Frozen(model_view(model).sites, prefix, model.get_parameter))
        with torch.no_grad():
            return network.taken(own_name(tensor), tensor.init, known[0])

    return value


def installed(model: nn.Module, site: Site, application: Application) -> SideNetwork:
    """The network of an application, where it was put."""
    slot = f"{site.owner}.peftc.{role_name(site)}.{attribute(application.instance)}"
    network: SideNetwork = model.get_submodule(slot)  # type: ignore[assignment]
    return network


def taken_again(
    model: nn.Module, rewrite: Rewrite, tensor: AddedTensor
) -> torch.Tensor:
    """The first value of a tensor of a network that is in the model."""
    own = next(a for a in rewrite.applications if tensor in a.tensors)
    network = installed(model, rewrite.site, own)
    path = backbone_path(model, rewrite.site.taps[0])
    frozen = Frozen((), f"{path}." if path else "", model.get_parameter)
    return network.taken(own_name(tensor), tensor.init, frozen)
