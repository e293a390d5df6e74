"""Adapters one after the other, of one plan or of several.

In: the plan of each and its tensors, on one model.  Out: what a forward of all of them
is given: the joined plan, ordered, and the tensors by the paths that it names them by.
None of them has to be in the modules.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from peftc.diagnostics.core import fail
from peftc.diagnostics.slots import CannotStack
from peftc.passes import PLAN_PIPELINE
from peftc.pipeline import Manager, load
from peftc.plan.print import plan_hash
from peftc.plan.stacking import Stacked, stacked
from peftc.runtime.bind import layout
from peftc.runtime.names import rows_path, scattered, tensor_path
from peftc.runtime.parameters import (
    added,
    drawn,
    like,
    places,
    row_numbers,
    stored_dtype,
)
from peftc.runtime.parts import parts
from peftc.runtime.several import Several

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftc.plan.types import Plan
    from peftc.runtime.bind import Layout
    from peftc.runtime.entry import Entry
    from peftc.runtime.recipe import Recipe
    from peftc.runtime.state import Adapter


@dataclass(frozen=True)
class Member:
    """One adapter: its plan, and its tensors by the paths that the plan names."""

    plan: Plan
    tensors: Mapping[str, torch.Tensor]


@dataclass
class InOrder(Several):
    """Adapters that run as one plan; `values` is one mapping, of its paths."""

    joined: Plan = field(kw_only=True)

    def whole(self, own: Layout, root: nn.Module) -> Layout:
        """The layout of the joined plan."""
        return layout(self.joined, plan_hash(self.joined), root, own.within)

    def recipe(self, own: Recipe) -> Recipe:
        """The joined plan, run as the model's own."""
        return replace(own, plan=self.joined)

    @property
    def told(self) -> tuple[str, ...]:
        """Nothing: a plan says all."""
        return ()

    def said(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """Nothing."""
        return {}

    def _stacked(self, paths: list[str]) -> list[torch.Tensor]:
        """The tensors as they are."""
        (values,) = self.values
        return [values[path] for path in paths]


def ordered(
    plans: Sequence[Plan], model: nn.Module, entries: Sequence[Entry]
) -> Stacked:
    """The plans as one that runs in the entries of a model.

    Raises:
        PeftcError: PEFT656, or what ordering it raises.
    """
    joined = stacked(plans)
    whole = Manager(load(PLAN_PIPELINE)).refine(joined.plan)
    _check_reached(whole, model, entries)
    return Stacked(whole, joined.sources)


def _check_reached(plan: Plan, model: nn.Module, entries: Sequence[Entry]) -> None:
    """Refuse a plan for a module that runs by itself, without an entry."""
    within = {entry.layout.within for entry in entries}
    if "" not in within:
        raise fail(CannotStack(problem="the model's layers are compiled one by one"))
    for path in parts(model):
        if path not in within and layout(plan, "", model, path).sites:
            problem = f"`{path}` runs by itself, and the model's own plan leaves it out"
            raise fail(CannotStack(problem=problem))


def tensors_of(
    joined: Stacked, members: Sequence[Member], model: nn.Module
) -> Mapping[str, torch.Tensor]:
    """The tensors of members by the paths of their joined plan."""
    return dict(_tensors(joined, members, model))


def _tensors(
    joined: Stacked, members: Sequence[Member], model: nn.Module
) -> Iterator[tuple[str, torch.Tensor]]:
    for rewrite, sources in zip(joined.plan.rewrites, joined.sources, strict=True):
        site = rewrite.site
        for tensor in rewrite.tensors:
            number, source = sources[tensor.name]
            path = tensor_path(site, source)
            yield tensor_path(site, tensor), members[number].tensors[path]
        if scattered(site):
            yield rows_path(site), row_numbers(site, like(model, site))


def follow(member: Member, model: nn.Module) -> Member:
    """Move tensors that are not in the modules to where the model is, in its types."""
    for rewrite in member.plan.rewrites:
        for tensor in rewrite.tensors:
            base = like(model, rewrite.site)
            dtype = stored_dtype(tensor, member.plan.dtype, base.dtype)
            value = member.tensors[tensor_path(rewrite.site, tensor)]
            value.data = value.data.to(base.device, dtype)
    return member


@torch.inference_mode(mode=False)
def own_member(adapter: Adapter, plan: Plan, model: nn.Module) -> Member:
    """An adapter that was read, with its own plan."""
    tensors = dict(drawn(plan, model))
    trained = {path for _, tensor, path in added(plan) if tensor.kind == "param"}
    for path, everywhere in places(plan).items():
        value = adapter.tensors[path].clone()
        one = nn.Parameter(value) if path in trained else value
        tensors |= dict.fromkeys(everywhere, one)
    return Member(plan, tensors)
