"""Linears of one activation and their programs as one step of autograd.

In: a `JointProgram`, of one site or of several that are grouped.  Out: a `Together`,
called with the activation, the bases' weights and the added tensors; forward and
backward are the generated functions of `codegen.torch_source`, and autograd keeps what
these say and nothing else.

Gradients of gradients are those of the same functions, run once more on what has a
gradient.  The activation is needed for that, and not always kept: `twice` keeps it.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from peftc.codegen.torch_source import Source, torch_source
from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import GradientsOnce
from peftc.expr.evaluate import MAPS, apply_call

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram

    Values = Sequence[Tensor | None]

_TWICE: ContextVar[bool] = ContextVar("twice", default=False)


@contextmanager
def twice() -> Iterator[None]:
    """Let gradients of what is computed meanwhile have gradients themselves."""
    token = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(token)


class Together:
    """A function of the tensors that `inputs` names.

    Activations are [..., features]; a result has the token axes of `x`.  Of several
    sites it gives a tuple.
    """

    def __init__(
        self, program: JointProgram, biases: frozenset[str], wide: str
    ) -> None:
        self.program = program
        self.biases = biases
        self.wide = wide
        self.given = {name for name, _ in program.backward.results}
        self.source = self._source(self.given)
        self.inputs = self.source.inputs
        tokens = {"x", *(one.name for one in program.inputs if one.tokens)}
        self.active = [name in tokens for name in self.inputs]
        self.first = self.inputs.index("x")
        self.run = _function(self.source.forward, "forward")
        self.again = _function(self.source.again, "again")
        read = self.source.saved
        pairs = zip(self.inputs, self.active, strict=True)
        self.saves = [not active or name in read for name, active in pairs]
        self._gradients: dict[tuple[bool, ...], Gradients] = {}

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return "together"

    def __call__(self, *tensors: Tensor) -> Any:
        """The values that the program replaces."""
        lead = tensors[self.first].shape[:-1]
        pairs = zip(tensors, self.active, strict=True)
        flat = [t.reshape(-1, t.shape[-1]) if active else t for t, active in pairs]
        found: Any = _Step.apply(self, *flat)  # type: ignore[no-untyped-call]
        if isinstance(found, tuple):
            return tuple(one.reshape(*lead, one.shape[-1]) for one in found)
        return found.reshape(*lead, found.shape[-1])

    def gradients(self, needed: tuple[bool, ...]) -> Gradients:
        """What gives the gradients of these of the inputs."""
        if needed not in self._gradients:
            pairs = list(zip(self.inputs, needed, strict=True))
            wanted = {name for name, need in pairs if need and name in self.given}
            source = self._source(wanted)
            self._gradients[needed] = Gradients(
                _function(source.backward, "backward"),
                [self._place(name) for name in source.saved],
                {self.inputs.index(n): i for i, n in enumerate(source.gradients)},
                self.underived(needed),
            )
        return self._gradients[needed]

    def back(
        self,
        needed: tuple[bool, ...],
        inputs: Values,
        kept: Values,
        adjoints: Sequence[Tensor],
    ) -> dict[int, Tensor]:
        """The gradients of these of the inputs, by their places."""
        gradients = self.gradients(needed)
        if torch.is_grad_enabled():
            kept = self.repeat(inputs, kept)[len(adjoints) :]
        found = gradients(adjoints, (*inputs, *kept))
        if gradients.underived:
            found |= _by_autograd(self, (inputs, kept), adjoints, gradients)
        return found

    def underived(self, needed: tuple[bool, ...]) -> list[int]:
        """Which of these inputs the program has no gradients of: what is frozen in the
        plan, but the user lets learn, and masks whose gradients are scores."""
        pairs = enumerate(zip(self.inputs, needed, strict=True))
        return [i for i, (name, need) in pairs if need and name not in self.given]

    def _source(self, wanted: set[str]) -> Source:
        """Where one gradient needs less than all do, what is kept is the same."""
        return torch_source(self.program, wanted, biases=self.biases, wide=self.wide)

    def _place(self, name: str) -> int:
        """Where a value is among the inputs and what the forward keeps."""
        return (*self.inputs, *self.source.kept).index(name)

    def held(self, tensors: Sequence[Tensor], all_of_them: bool) -> Values:
        """What is saved of the inputs: parameters take no memory, activations do."""
        pairs = zip(tensors, self.saves, strict=True)
        return [tensor if saves or all_of_them else None for tensor, saves in pairs]

    def repeat(self, inputs: Values, kept: Values) -> tuple[Tensor, ...]:
        """The forward once more, with what was drawn.

        Raises:
            PeftcError: if an activation was not kept.
        """
        if any(value is None for value in inputs):
            raise fail(GradientsOnce())
        drawn = kept[len(kept) - len(self.source.drawn) :]
        found: tuple[Tensor, ...] = self.again(*inputs, *drawn)
        return found


@dataclass(frozen=True)
class Gradients:
    """The generated backward for some of the inputs."""

    run: Callable[..., tuple[Tensor, ...]]
    reads: Sequence[int]
    gives: dict[int, int]
    """By the place of an input: which of the gradients is its."""
    underived: Sequence[int]

    def __call__(self, adjoints: Values, saved: Values) -> dict[int, Tensor]:
        """The gradients by the places of the inputs."""
        found = self.run(*adjoints, *(saved[i] for i in self.reads))
        return {place: found[i] for place, i in self.gives.items()}


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, together: Together, *tensors: Tensor) -> Any:
        count = len(together.source.results)
        values = together.run(*tensors)
        ctx.together = together
        every = _TWICE.get() or bool(together.underived(ctx.needs_input_grad[1:]))
        ctx.save_for_backward(*together.held(tensors, every), *values[count:])
        return values[0] if count == 1 else values[:count]

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> Any:
        together: Together = ctx.together
        count = len(together.inputs)
        saved = ctx.saved_tensors  # checkpointing lets them be read once
        needed = ctx.needs_input_grad[1:]
        found = together.back(needed, saved[:count], saved[count:], adjoints)
        return None, *map(found.get, range(count))


def _by_autograd(
    together: Together,
    saved: tuple[Values, Values],
    adjoints: Values,
    gradients: Gradients,
) -> dict[int, Tensor]:
    """Gradients by torch, of the forward run once more."""
    (inputs, kept), twice = saved, torch.is_grad_enabled()
    with torch.enable_grad():
        values = [v if twice or v is None else v.detach() for v in inputs]
        leaves = [v for i in gradients.underived if (v := values[i]) is not None]
        if not twice:
            leaves = [leaf.requires_grad_() for leaf in leaves]
        pairs = zip(together.repeat(values, kept), adjoints, strict=False)
        reached = [(value, dy) for value, dy in pairs if value.requires_grad]
        results, seeds = zip(*reached, strict=True)
    found = torch.autograd.grad(
        results, leaves, seeds, allow_unused=True, create_graph=twice
    )
    return dict(zip(gradients.underived, found, strict=True))


def _function(text: str, name: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"torch": torch, "F": F, "call": apply_call, **MAPS}
    exec(compile(text, f"<{name} of a site>", "exec"), names)
    function: Callable[..., Any] = names[name]
    return function


@lru_cache(maxsize=256)
def together(
    program: JointProgram, biases: frozenset[str] = frozenset(), wide: str = ""
) -> Together:
    """The function of a program: equal programs have one.

    Raises:
        NoSourceError: if a step has no form.
    """
    return Together(program, biases, wide)
