"""The parameters that a plan adds, in the model.

In: a model and a Plan.  Out: the model with a child `peftc` under each site's owner,
its base frozen, and a record with which `detach` takes everything back.  Everything is
checked and built before the model is touched, so an error leaves it as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from peftc.plan.equations import definitions
from peftc.plan.types import stored
from peftc.runtime.codes import Holder, free
from peftc.runtime.fit import check_fit
from peftc.runtime.initial import Evaluate, initial_value
from peftc.runtime.names import (
    CHILD,
    ROWS,
    STORED,
    attribute,
    role_name,
    scattered,
    tensor_parts,
    tensor_path,
)
from peftc.runtime.networks import network_at, own_name, taken

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.plan.types import AddedTensor, Plan, Rewrite, Storage, StoredWeight
    from peftc.runtime.codes import Codes
    from peftc.view import Site

EvaluateAt: TypeAlias = "Mapping[str, Evaluate]"
"""By site key: what evaluates the initial values that read the base."""


class Slot(nn.Module):
    """Holds added tensors, or other slots: the child `peftc`, a role, an instance."""

    def slot(self, name: str) -> Slot:
        """The slot below this one, made if missing."""
        if name not in self._modules:
            self.add_module(name, Slot())
        child = self._modules[name]
        assert isinstance(child, Slot)
        return child


@dataclass(frozen=True)
class Attached:
    """What `attach` did: the owners that got a child, and the flags it changed."""

    owners: tuple[str, ...]
    trained: tuple[str, ...]
    """Base parameters that required gradients before."""


def attach(
    model: nn.Module,
    plan: Plan,
    evaluate: EvaluateAt | None = None,
    codes: Codes | None = None,
) -> Attached:
    """Add the plan's tensors to the model and freeze the base.

    Weights that are kept in `codes` lose their values.

    Raises:
        PeftcError: if the plan does not fit the model; nothing is changed then.
    """
    check_fit(model, plan)
    slots = _build(model, plan, evaluate or {})
    for weight in plan.stores:
        _add_codes(slots, weight, (codes or {})[weight.weight])
    trained = tuple(n for n, p in model.named_parameters() if p.requires_grad)
    model.requires_grad_(False)
    for owner, slot in slots.items():
        model.get_submodule(owner).add_module(CHILD, slot)
    free(model, plan.stores)
    return Attached(tuple(slots), trained)


def _add_codes(
    slots: dict[str, Slot], stored: StoredWeight, parts: Mapping[str, torch.Tensor]
) -> None:
    owner, _, name = stored.weight.rpartition(".")
    holder = slots.setdefault(owner, Slot()).slot(STORED)
    holder.add_module(attribute(name), Holder(parts))


def detach(model: nn.Module, attached: Attached) -> None:
    """Take back what `attach` did."""
    for owner in attached.owners:
        model.get_submodule(owner)._modules.pop(CHILD)
    for name in attached.trained:
        model.get_parameter(name).requires_grad_(True)


def _build(model: nn.Module, plan: Plan, evaluate: EvaluateAt) -> dict[str, Slot]:
    """The child for each owner, outside the model still."""
    slots: dict[str, Slot] = {}
    shared: dict[Storage, torch.Tensor] = {}
    for rewrite in plan.rewrites:
        site = rewrite.site
        top = slots.setdefault(site.owner, Slot())
        if site.kind == "side":
            _add_networks(top, model, plan, rewrite)
            continue
        base = like(model, site)
        for tensor in rewrite.tensors:
            key = rewrite.storage(tensor)
            if key not in shared:
                at = evaluate.get(site.key)
                shared[key] = _make(tensor, plan, site, base, at)
            _register(top, site, tensor, shared[key])
        if site.rows is not None and scattered(site):
            role = top.slot(role_name(site))
            role.register_buffer(ROWS, row_numbers(site, base), persistent=False)
    return slots


def _add_networks(top: Slot, model: nn.Module, plan: Plan, rewrite: Rewrite) -> None:
    """Put the network of each application where its tensors' paths say."""
    site = rewrite.site
    base = like(model, site)
    slot = top.slot(role_name(site))
    for application in rewrite.applications:
        network = network_at(model, rewrite, application, definitions(plan))
        evaluate = taken(model, site, network)
        made = {
            own_name(tensor): _make(tensor, plan, site, base, evaluate)
            for tensor in application.tensors
        }
        network.take(made)
        network.train(model.get_submodule(site.taps[0]).training)
        if next(network.parameters()).device != base.device:
            network.to(base.device)
        slot.add_module(attribute(application.instance), network)


def like(model: nn.Module, site: Site) -> torch.Tensor:
    """A base tensor with the site's device and dtype."""
    if site.weight:
        return model.get_parameter(site.weight)
    first = next(model.get_submodule(site.owner).parameters(), None)
    return first if first is not None else next(model.parameters())


def tensor_dtype(rule: str, base: torch.dtype) -> torch.dtype:
    """The dtype of new tensors: `auto` never trains in less than float32."""
    if rule != "auto":
        dtype = getattr(torch, rule)
        assert isinstance(dtype, torch.dtype)
        return dtype
    wide = base.is_floating_point and base.itemsize >= 4
    return base if wide else torch.float32


def stored_dtype(tensor: AddedTensor, rule: str, base: torch.dtype) -> torch.dtype:
    """The dtype of an added tensor: whole numbers for places, else `tensor_dtype`."""
    return torch.int64 if tensor.places else tensor_dtype(rule, base)


def _make(
    tensor: AddedTensor,
    plan: Plan,
    site: Site,
    base: torch.Tensor,
    evaluate: Evaluate | None,
) -> torch.Tensor:
    dtype = stored_dtype(tensor, plan.dtype, base.dtype)
    if base.is_meta or isinstance(base, FakeTensor):
        value = base.new_empty(tensor.shape, dtype=dtype)
    else:
        value = initial_value(tensor, plan.seed, site.key, dtype, evaluate)
        value = value.to(base.device)
    return nn.Parameter(value) if tensor.kind == "param" else value


def _register(top: Slot, site: Site, tensor: AddedTensor, value: torch.Tensor) -> None:
    _, *path, leaf = tensor_parts(site, tensor.name)
    slot = top
    for part in path:
        slot = slot.slot(part)
    if isinstance(value, nn.Parameter):
        slot.register_parameter(leaf, value)
    else:
        slot.register_buffer(leaf, value, persistent=not tensor.drawn)


def row_numbers(site: Site, base: torch.Tensor) -> torch.Tensor:
    """The numbers of the rows of a site, where a base tensor is."""
    assert site.rows is not None
    ranges = [
        torch.arange(first, last, device=base.device) for first, last in site.rows
    ]
    return torch.cat(ranges)


def added(plan: Plan) -> Iterator[tuple[Rewrite, AddedTensor, str]]:
    """Every added tensor that is stored once, with its rewrite and its path."""
    for rewrite, tensor in stored(plan.rewrites):
        yield rewrite, tensor, tensor_path(rewrite.site, tensor)


def places(plan: Plan) -> Mapping[str, tuple[str, ...]]:
    """Where each tensor of an adapter is in the model, by its path in a file."""
    found: dict[Storage, list[str]] = {}
    for rewrite in plan.rewrites:
        for tensor in rewrite.tensors:
            if not tensor.drawn:
                path = tensor_path(rewrite.site, tensor)
                found.setdefault(rewrite.storage(tensor), []).append(path)
    return {paths[0]: tuple(paths) for paths in found.values()}


def drawn(plan: Plan, model: nn.Module) -> Mapping[str, torch.Tensor]:
    """The random tensors of a plan that no file holds, by every path they are at; on
    the CPU, as what a file holds."""
    made: dict[object, torch.Tensor] = {}
    for rewrite, tensor, _ in added(plan):
        if tensor.drawn:
            base = like(model, rewrite.site)
            dtype = stored_dtype(tensor, plan.dtype, base.dtype)
            value = initial_value(tensor, plan.seed, rewrite.site.key, dtype)
            made[rewrite.storage(tensor)] = value
    return {
        tensor_path(rewrite.site, tensor): made[rewrite.storage(tensor)]
        for rewrite in plan.rewrites
        for tensor in rewrite.tensors
        if tensor.drawn
    }
