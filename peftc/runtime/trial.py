"""A compiled model on which something is tried, and which is as it was afterwards.

In: a handle.  Out: a `Trial`: inputs for the model, what it says to them, its added
tensors at their first values or moved from them, and the base as captured.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from peftc.runtime.adapters import first_values, tensor_at, tensors
from peftc.runtime.bind import layout
from peftc.runtime.entry import Entry
from peftc.runtime.modes import evaluating
from peftc.runtime.recipe import Captures
from peftc.runtime.tripwire import Switch
from peftc.sites.inputs import example_inputs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.runtime.handle import Handle

NOISE = 0.05
"""Standard deviation of what trained tensors are moved by."""
LOWEST, HIGHEST = 50, 100
"""Numbers of the tokens a model is given, where its vocabulary has them."""


@dataclass(frozen=True)
class Trial:
    """A compiled model, and what its user gives of the arguments of its forward."""

    handle: Handle
    given: Mapping[str, Any]

    @property
    def model(self) -> Any:
        """The model; not typed, as it is asked for what only some have."""
        return self.handle.model

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """The trained tensors by path."""
        groups = self.handle.parameters_by_method().values()
        return {path: p for group in groups for path, p in group.items()}

    def parameters(self) -> tuple[str, ...]:
        """The names of the forward's arguments."""
        return tuple(inspect.signature(self.model.forward).parameters)

    # --- running ---------------------------------------------------------------------

    def inputs(self) -> dict[str, Any]:
        """Example inputs, with tokens that differ if it reads tokens."""
        made = example_inputs(self.model, self.given)
        stream = torch.Generator().manual_seed(1)
        for name in ("input_ids", "decoder_input_ids"):
            if name in made and name not in self.given:
                most = min(HIGHEST, self.model.get_input_embeddings().weight.shape[0])
                least = min(LOWEST, most // 2)
                ids = torch.randint(least, most, made[name].shape, generator=stream)
                made[name] = ids.to(made[name].device)
        return made

    def said(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The first thing the model gives, logits or hidden states."""
        with torch.no_grad():
            return first(self.model(**inputs))

    def said_by_the_base(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The same of the base, captured as the model is, but not rewritten.

        Where only layers are captured, the base is what runs in Python.
        """
        if self.handle.entries[0].layout.kin is not None:
            with self.handle.disabled():
                return self.said(inputs)
        recipe = self.handle.recipe
        bare = replace(recipe.plan, rewrites=())
        entry = Entry(
            self.model,
            layout(bare, "base", self.model),
            replace(recipe, plan=bare),
            Switch(),
            Captures(),
        )
        entry.previous = self.handle.entries[0].previous
        with torch.no_grad():
            return first(entry(**inputs))

    # --- values ----------------------------------------------------------------------

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Evaluate inside; put values, gradients and modes back."""
        model = self.model
        values = tensors(model, self.handle.plan)
        kept = {path: value.detach().clone() for path, value in values.items()}
        gradients = {p: p.grad for p in model.parameters()}
        try:
            with evaluating(model), torch.random.fork_rng(devices=[]):
                yield
        finally:
            self.put(kept)
            for parameter, gradient in gradients.items():
                parameter.grad = gradient

    def put(self, values: Mapping[str, torch.Tensor]) -> None:
        """Give the added tensors these values."""
        with torch.no_grad():
            for path, value in values.items():
                tensor_at(self.model, path).copy_(value)

    def first_values(self) -> Mapping[str, torch.Tensor]:
        """What the added tensors were when the spec was compiled; those that began
        with the values of other adapters, which may be gone, what they are now."""
        now = tensors(self.model, self.handle.plan)
        return first_values(self.model, self.handle.plan, now)

    def move_from_the_start(self) -> None:
        """Move what is trained, if nothing has trained it yet."""
        start, trained = self.first_values(), self.trained()
        if any(not torch.equal(p.cpu(), start[path]) for path, p in trained.items()):
            return
        stream = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in trained.values():
                noise = torch.randn(parameter.shape, generator=stream)
                parameter.add_(NOISE * noise.to(parameter))


def first(result: Any) -> torch.Tensor:
    """The first tensor of a forward's result."""
    return next(v for v in tree_leaves(result) if isinstance(v, torch.Tensor))


def difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    most = wanted.double().abs().max().item() or 1.0
    return (got.double() - wanted.double()).abs().max().item() / most
