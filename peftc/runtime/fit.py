"""Does a plan fit a model?

In: a model and a Plan.  Out: nothing, or all that stands in the way, as diagnostics.
The model is only looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from peftc.diagnostics.core import Diagnostic, Diagnostics, fail
from peftc.diagnostics.runtime import (
    AlreadyCompiled,
    BaseDiffers,
    NoPlaceForParameters,
    ShardedBase,
    SharedAcrossDevices,
)
from peftc.diagnostics.scale import DispatchedBase, PartitionedBase
from peftc.runtime.names import CHILD, tensor_path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.types import Plan, Rewrite
    from peftc.view import Site

_RUNS_ITS_CHILDREN = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def check_model(model: nn.Module) -> None:
    """Raise `PeftcError` if nothing can be attached to the model, whatever the plan."""
    errors = Diagnostics()
    for found in (_compiled(model), _sharded(model), _taken(model)):
        for diagnostic in found:
            errors.add(diagnostic)
    errors.check()


def check_fit(model: nn.Module, plan: Plan) -> None:
    """Raise `PeftcError` with every reason why the plan cannot be attached."""
    check_model(model)
    errors = Diagnostics()
    for rewrite in plan.rewrites:
        for diagnostic in _site(model, rewrite.site):
            errors.add(diagnostic)
    errors.check()
    for found in (_shared(model, plan), _clashes(plan)):
        for diagnostic in found:
            errors.add(diagnostic)
    errors.check()


def _compiled(model: nn.Module) -> Iterator[Diagnostic]:
    if CHILD in model.__dict__:
        yield AlreadyCompiled(what="peftc compiled this model before")
    for path, module in model.named_modules():
        wrapped = isinstance(module, torch._dynamo.OptimizedModule)
        if wrapped or module._compiled_call_impl is not None:
            what = f"`{path or type(module).__name__}` is under `torch.compile`"
            yield AlreadyCompiled(what=what)
            return


def _sharded(model: nn.Module) -> Iterator[Diagnostic]:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            yield ShardedBase(parameter=name)
            return


def check_taken(model: nn.Module) -> None:
    """Raise `PeftcError` (PEFT608, PEFT609) if another tool has put hooks around the
    model's modules, maybe after it was compiled: no graph can be captured then."""
    for diagnostic in _taken(model):
        raise fail(diagnostic)


def _taken(model: nn.Module) -> Iterator[Diagnostic]:
    """Known by what DeepSpeed's ZeRO-3 and accelerate write on parameters and modules,
    so that neither has to be imported."""
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id") and hasattr(parameter, "ds_status"):
            yield PartitionedBase(parameter=name)
            return
    for path, module in model.named_modules():
        if hasattr(module, "_hf_hook"):
            yield DispatchedBase(module=path or type(module).__name__)
            return


def _site(model: nn.Module, site: Site) -> Iterator[Diagnostic]:
    try:
        owner = model.get_submodule(site.owner)
    except AttributeError:
        yield BaseDiffers(site=site.key, problem=f"there is no module `{site.owner}`")
        return
    if why := _no_place(model, owner):
        yield NoPlaceForParameters(site=site.key, why=why)
    yield from _parameters(model, site)


def _no_place(model: nn.Module, owner: nn.Module) -> str:
    if owner is model:
        return "its owner is the model itself"
    if isinstance(owner, _RUNS_ITS_CHILDREN):
        return f"its owner is a {type(owner).__name__}, which runs all of its children"
    if hasattr(owner, CHILD):
        return f"its owner already has an attribute `{CHILD}`"
    return ""


def _parameters(model: nn.Module, site: Site) -> Iterator[Diagnostic]:
    for name in filter(None, (site.weight, site.bias)):
        try:
            shape = tuple(model.get_parameter(name).shape)
        except AttributeError:
            yield BaseDiffers(site=site.key, problem=f"no parameter `{name}`")
            continue
        if name == site.weight and (problem := _misfit(site, shape)):
            yield BaseDiffers(site=site.key, problem=problem)


def _misfit(site: Site, shape: tuple[int, ...]) -> str:
    """What is wrong with the shape of a site's weight."""
    if site.kind == "norm" and shape != (site.size("hidden"),):
        return f"the gain has shape {shape}, not ({site.size('hidden')},)"
    if site.experts and shape[:-2] != (site.experts,):
        return f"the weight has shape {shape}, not that of {site.experts} experts"
    if site.kind != "linear" or len(shape) - bool(site.experts) != 2:
        return ""
    outs, ins = reversed(shape[-2:]) if site.transposed else shape[-2:]
    least = site.rows[-1][1] if site.rows else site.size("out")
    exact = site.rows is None
    if ins != site.size("in") or outs < least or (exact and outs != least):
        return f"the weight has shape {shape}, not that of the plan"
    return ""


def _shared(model: nn.Module, plan: Plan) -> Iterator[Diagnostic]:
    devices: dict[tuple[str, str], set[torch.device]] = {}
    for rewrite in plan.rewrites:
        for tensor in rewrite.tensors:
            if tensor.shared:
                found = devices.setdefault((tensor.shared, tensor.name), set())
                found.add(_device(model, rewrite))
    for (_, name), found in devices.items():
        if len(found) > 1:
            places = ", ".join(sorted(map(str, found)))
            yield SharedAcrossDevices(tensor=name, devices=places)


def _device(model: nn.Module, rewrite: Rewrite) -> torch.device:
    owner = model.get_submodule(rewrite.site.owner)
    return next(iter(owner.parameters()), torch.empty(0)).device


def _clashes(plan: Plan) -> Iterator[Diagnostic]:
    """Names differ, but the paths made of them need not (`a#2` and `a_2`)."""
    seen: set[str] = set()
    for rewrite in plan.rewrites:
        for tensor in rewrite.tensors:
            path = tensor_path(rewrite.site, tensor)
            if path in seen:
                why = f"two tensors would both be `{path}`"
                yield NoPlaceForParameters(site=rewrite.site.key, why=why)
            seen.add(path)
