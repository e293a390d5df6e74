"""Which adapter each sample of a batch has, and the tensors of those that are used.

In: slots, and a name for each sample.  Out: what a forward is given: for each added
tensor the used adapters' values in one stack, and of each sample the number of its
adapter there.  How many slots there are beside plays no part.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from peftc.diagnostics.core import Diagnostics, fail
from peftc.diagnostics.slots import NotBySample, OtherBatch
from peftc.rewrite.samples import ADAPTED, NUMBER, SAMPLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn

    from peftc.plan.types import Plan
    from peftc.runtime.bind import Layout
    from peftc.view import Site

Values: TypeAlias = "tuple[Mapping[str, torch.Tensor], ...]"
"""Of each used adapter the tensors by every path they are at."""

BATCHED = ("input_ids", "inputs_embeds", "decoder_input_ids", "decoder_inputs_embeds")
"""Arguments of a forward of Transformers whose first axis is that of samples, beside
what a model says is its main one."""


WITHOUT = {
    "experts": "its rows are sorted by expert, and no longer by sample",
    "norm": "the gain and the offset of a norm are one for all samples",
    "attention": "rows that are added to an attention are one for all samples",
    "input": "rows among the tokens make all samples longer, by as many",
    "side": "a side network is traced as it is, with one set of weights",
    "embedding": "a look-up has one table for all samples",
}
"""Kinds of sites at which all samples have one adapter, and why."""


@dataclass
class Samples:
    """The adapters of a batch's samples.

    `numbers` says for each sample which of `values` is its own; below zero is none.
    """

    owner: object
    numbers: tuple[int, ...]
    values: Values
    _stacks: dict[Any, list[torch.Tensor]] = field(default_factory=dict)

    @property
    def partly(self) -> bool:
        """Whether some samples have no adapter."""
        return min(self.numbers) < 0

    def given(self, layout: Layout, batch: torch.Tensor) -> list[torch.Tensor]:
        """What a forward of this batch is given, in the order of the layout.

        Raises:
            PeftcError: PEFT652 if the batch has other samples.
        """
        reads = layout.reads[len(layout.reads) - layout.given :]
        paths = [read.path for read in reads if read.site != SAMPLES]
        return [*self._stacked(paths), *self._said(batch)]

    def _said(self, batch: torch.Tensor) -> list[torch.Tensor]:
        """The number of each sample's adapter, and whether it has one."""
        count, own = batch.shape[0], len(self.numbers)
        if count % own:
            raise fail(OtherBatch(samples=count, slots=own))
        numbers = torch.tensor(self.numbers, device=batch.device)
        # Beams, and several answers to one question, are samples side by side.
        numbers = numbers.repeat_interleave(count // own)
        said = {NUMBER: numbers.clamp(min=0), ADAPTED: numbers >= 0}
        return [said[name] for name in (NUMBER, ADAPTED)[: 1 + self.partly]]

    def _stacked(self, paths: list[str]) -> list[torch.Tensor]:
        """The stacks; made anew where they are trained, or where a value changed."""
        if torch.is_grad_enabled():
            return _stacks(self.values, paths)
        tensors = [value[path] for value in self.values for path in paths]
        state = (
            torch.is_inference_mode_enabled(),
            *(_state(tensor) for tensor in tensors),
        )
        if state not in self._stacks:
            self._stacks = {state: _stacks(self.values, paths)}
        return self._stacks[state]


def _state(tensor: torch.Tensor) -> tuple[int, int]:
    """What changes when the values of a tensor do."""
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version


def _stacks(values: Values, paths: list[str]) -> list[torch.Tensor]:
    """One stack for each path; one tensor at several paths is stacked once."""
    made: dict[int, torch.Tensor] = {}
    for path in paths:
        key = id(values[0][path])
        if key not in made:
            made[key] = torch.stack([value[path] for value in values])
            # How many adapters a batch has is no reason to capture anew.
            torch._dynamo.maybe_mark_dynamic(made[key], 0)
    return [made[id(values[0][path])] for path in paths]


# --- which plans can ----------------------------------------------------------------


def check_samples(plan: Plan) -> None:
    """Refuse a plan in which samples cannot have adapters of their own.

    Raises:
        PeftcError: PEFT653, once for each kind of site.
    """
    errors = Diagnostics()
    for kind, rewrite in {_kind(r.site): r for r in plan.rewrites}.items():
        if kind in WITHOUT:
            origin = next((a.origin for a in rewrite.applications if a.origin), "")
            where = rewrite.site.key
            errors.add(NotBySample(site=where, why=WITHOUT[kind], origin=origin))
    errors.check()


def _kind(site: Site) -> str:
    return "experts" if site.experts else site.kind


# --- the batch at hand ------------------------------------------------------------


_now: ContextVar[tuple[Samples, ...]] = ContextVar("peftc_samples", default=())


@contextmanager
def chosen(samples: Samples) -> Iterator[None]:
    """Inside, in this thread or task, these are what the owner's model runs with."""
    token = _now.set((*_now.get(), samples))
    try:
        yield
    finally:
        _now.reset(token)


def current(owner: object) -> Samples | None:
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
