"""Adapters that run at once: one for each sample of a batch, or several by weight.

In: the tensors of the adapters in use.  Out: what a forward is given: for each added
tensor their values in one stack, and which of them each sample has, or which weight
each of them.  How many slots there are beside plays no part.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from peftc.diagnostics.core import Diagnostics, fail
from peftc.diagnostics.slots import OtherBatch
from peftc.rewrite.samples import ADAPTED, NUMBER
from peftc.rewrite.several import SEVERAL, WEIGHTS
from peftc.runtime.bind import Layout, for_several

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from peftc.diagnostics.slots import NotBySample, NotByWeight
    from peftc.plan.types import Plan
    from peftc.runtime.recipe import Recipe
    from peftc.view import Site

    AtOnce: TypeAlias = NotBySample | NotByWeight

Values: TypeAlias = "tuple[Mapping[str, torch.Tensor], ...]"
"""Of each used adapter the tensors by every path they are at."""

BATCHED = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
"""Arguments of a forward of Transformers whose first axis is that of samples, beside
what a model says is its main one."""


ALONE = {
    "experts": "its rows are sorted by expert, and no longer by sample",
    "attention": "rows that are added to an attention are one for all samples",
    "input": "rows among the tokens make all samples longer, by as many",
    "side": "a side network is traced as it is, with one set of weights",
}
"""Kinds of sites at which one adapter runs at a time, and why."""
SHARED = {
    **ALONE,
    "norm": "the gain and the offset of a norm are one for all samples",
}
"""Kinds at which all samples have one adapter, and why."""
UNWEIGHTED = {
    **ALONE,
    "experts": "its stacks have an axis already, that of experts",
    "attention": "rows that are added to an attention share its weights: they have no "
    "effect that could be added to another's",
}
"""Kinds at which adapters have no weights, and why."""


@dataclass
class Several:
    """Adapters that run at once; `owner` is what has them."""

    owner: object
    values: Values
    _stacks: dict[Any, list[torch.Tensor]] = field(default_factory=dict)
    _layouts: dict[str, Layout] = field(default_factory=dict)

    def layout(self, own: Layout, root: nn.Module) -> Layout:
        """What a forward of this layout reads if they run in it."""
        if own.within not in self._layouts:
            whole = self.whole(own, root)
            self._layouts[own.within] = for_several(whole, self.values[0], self.told)
        return self._layouts[own.within]

    def whole(self, own: Layout, root: nn.Module) -> Layout:
        """The layout of all tensors, were they in the modules."""
        return own

    def recipe(self, own: Recipe) -> Recipe:
        """By what they run, where the model runs by its own."""
        return own

    @property
    def told(self) -> tuple[str, ...]:
        """The names of what a forward is told of them beside their tensors."""
        raise NotImplementedError

    def given(self, layout: Layout, batch: torch.Tensor) -> list[torch.Tensor]:
        """What a forward of this batch is given, in the order of the layout.

        Raises:
            PeftcError: PEFT652 if the batch does not fit.
        """
        reads = layout.reads[len(layout.reads) - layout.given :]
        paths = [read.path for read in reads if read.site != SEVERAL]
        said = self.said(batch)
        return [*self._stacked(paths), *(said[name] for name in self.told)]

    def said(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What it is told, by name."""
        raise NotImplementedError

    def _stacked(self, paths: list[str]) -> list[torch.Tensor]:
        """The stacks; made anew where they are trained, or where a value changed."""
        if torch.is_grad_enabled():
            return _stacks(self.values, paths)
        tensors = [value[path] for value in self.values for path in paths]
        state = (torch.is_inference_mode_enabled(), *map(_state, tensors))
        if state not in self._stacks:
            self._stacks = {state: _stacks(self.values, paths)}
        return self._stacks[state]


@dataclass
class OfSamples(Several):
    """The adapters of a batch's samples.

    `numbers` says for each sample which of `values` is its own; below zero is none.
    """

    numbers: tuple[int, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The number of each sample's adapter, and whether it has one if some do not:
        the base's values are kept at a cost."""
        return (NUMBER, ADAPTED) if min(self.numbers) < 0 else (NUMBER,)

    def said(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The numbers, for each sample of this batch."""
        count, own = batch.shape[0], len(self.numbers)
        if count % own:
            raise fail(OtherBatch(samples=count, slots=own))
        numbers = torch.tensor(self.numbers, device=batch.device)
        # Beams, and several answers to one question, are samples side by side.
        numbers = numbers.repeat_interleave(count // own)
        return {NUMBER: numbers.clamp(min=0), ADAPTED: numbers >= 0}


@dataclass
class ByWeight(Several):
    """Adapters whose effects are added, each times its weight."""

    weights: tuple[float, ...] = ()

    @property
    def told(self) -> tuple[str, ...]:
        """The weights."""
        return (WEIGHTS,)

    def said(self, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """The weights, where the batch is."""
        weights = torch.tensor(self.weights, dtype=torch.float64, device=batch.device)
        return {WEIGHTS: _counted(weights)}


def _state(tensor: torch.Tensor) -> tuple[int, int]:
    """What changes when the values of a tensor do."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _stacks(values: Values, paths: list[str]) -> list[torch.Tensor]:
    """One stack for each path; one tensor at several paths is stacked once."""
    made: dict[int, torch.Tensor] = {}
    for path in paths:
        key = id(values[0][path])
        if key not in made:
            made[key] = _counted(torch.stack([value[path] for value in values]))
    return [made[id(values[0][path])] for path in paths]


def _counted(stack: torch.Tensor) -> torch.Tensor:
    """A value of so many adapters: how many is no reason to capture anew."""
    torch._dynamo.maybe_mark_dynamic(stack, 0)
    return stack


# --- which plans can ----------------------------------------------------------------


def check_kinds(plan: Plan, without: Mapping[str, str], error: type[AtOnce]) -> None:
    """Refuse a plan with sites of these kinds, at which adapters cannot run at once.

    Raises:
        PeftcError: `error`, once for each kind.
    """
    errors = Diagnostics()
    for kind, rewrite in {_kind(r.site): r for r in plan.rewrites}.items():
        if kind in without:
            origin = next((a.origin for a in rewrite.applications if a.origin), "")
            where = rewrite.site.key
            errors.add(error(site=where, why=without[kind], origin=origin))
    errors.check()


def _kind(site: Site) -> str:
    return "experts" if site.experts else site.kind


# --- the batch at hand ------------------------------------------------------------


_now: ContextVar[tuple[Several, ...]] = ContextVar("peftc_several", default=())


@contextmanager
def chosen(several: Several) -> Iterator[None]:
    """Inside, in this thread or task, these are what the owner's model runs with."""
    token = _now.set((*_now.get(), several))
    try:
        yield
    finally:
        _now.reset(token)


def current(owner: object) -> Several | None:
    """What was chosen last for the owner."""
    return next((s for s in reversed(_now.get()) if s.owner is owner), None)


def batch_of(
    module: nn.Module,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> torch.Tensor:
    """An argument of a call whose first axis is that of samples."""
    names = (getattr(module, "main_input_name", ""), *BATCHED)
    given = inspect.signature(forward).bind_partial(*args, **kwargs).arguments
    every = {**given, **kwargs}
    known = (every[n] for n in names if isinstance(n, str) and n in every)
    others = (v for v in every.values() if isinstance(v, torch.Tensor))
    tensors = (v for v in (*known, *others) if isinstance(v, torch.Tensor))
    return next(tensors)
