"""Linears of one activation and their programs as one step of autograd.

In: a `JointProgram`, of one site or of several that are grouped.  Out: a `Together`,
called with the activation, the bases' weights and the added tensors; forward and
backward are generated functions, and autograd keeps what these say and nothing else.
`rewrite.torch_step` and `rewrite.kernel_step` say what the functions are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch

from peftc.codegen.halves import like

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram

Values: TypeAlias = "Sequence[Tensor | None]"
Run: TypeAlias = "Callable[..., tuple[Tensor, ...]]"

_TWICE: ContextVar[bool] = ContextVar("twice", default=False)


@contextmanager
def twice() -> Iterator[None]:
    """Let gradients of what is computed meanwhile have gradients themselves.

    The activation is needed for that, and not always kept: here it is.
    """
    token = _TWICE.set(True)
    try:
        yield
    finally:
        _TWICE.reset(token)


class Passed(Protocol):
    """What a forward takes, gives and leaves for its backward, by name."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the forward takes."""

    @property
    def results(self) -> tuple[str, ...]:
        """What it gives first."""

    @property
    def kept(self) -> tuple[str, ...]:
        """What it gives then."""

    @property
    def saved(self) -> tuple[str, ...]:
        """What the backward takes after the adjoints, of inputs and what is kept."""

    @property
    def gradients(self) -> tuple[str, ...]:
        """The inputs whose gradients the backward gives."""


class Together(ABC):
    """A function of the tensors that `inputs` names.

    Activations are [..., features]; a result has the token axes of `x`.  Of several
    sites it gives a tuple.
    """

    def __init__(
        self, program: JointProgram, biases: frozenset[str], wide: str = ""
    ) -> None:
        self.program = program
        self.biases = biases
        self.wide = wide
        self.given = {name for name, _ in program.backward.results}
        self.source, self.run = self.forward()
        self.inputs = self.source.inputs
        tokens = {"x", *(one.name for one in program.inputs if one.tokens)}
        self.active = [name in tokens for name in self.inputs]
        self.first = self.inputs.index(like(program))
        read = self.source.saved
        pairs = zip(self.inputs, self.active, strict=True)
        self.saves = [not active or name in read for name, active in pairs]
        self._gradients: dict[tuple[bool, ...], Gradients] = {}

    @abstractmethod
    def forward(self) -> tuple[Passed, Run]:
        """The function that gives the results, and what is kept for all gradients."""

    @abstractmethod
    def backward(self, wanted: set[str]) -> tuple[Passed, Run]:
        """The function that gives these gradients; what is kept is the same."""

    @abstractmethod
    def back(
        self,
        needed: tuple[bool, ...],
        inputs: Values,
        kept: Values,
        adjoints: Sequence[Tensor],
    ) -> dict[int, Tensor]:
        """The gradients of these of the inputs, by their places."""

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return "together"

    def __call__(self, *tensors: Tensor) -> Any:
        """The values that the program replaces."""
        lead = tensors[self.first].shape[:-1]
        pairs = zip(tensors, self.active, strict=True)
        flat = [t.reshape(-1, t.shape[-1]) if active else t for t, active in pairs]
        found = self.step(flat)
        if isinstance(found, tuple):
            return tuple(one.reshape(*lead, one.shape[-1]) for one in found)
        return found.reshape(*lead, found.shape[-1])

    def step(self, flat: Sequence[Tensor]) -> Any:
        """The values for activations of [tokens, features]."""
        return _Step.apply(self, *flat)  # type: ignore[no-untyped-call]

    def gradients(self, needed: tuple[bool, ...]) -> Gradients:
        """What gives the gradients of these of the inputs."""
        if needed not in self._gradients:
            pairs = list(zip(self.inputs, needed, strict=True))
            wanted = {name for name, need in pairs if need and name in self.given}
            source, run = self.backward(wanted)
            self._gradients[needed] = Gradients(
                run,
                [self._place(name) for name in source.saved],
                {self.inputs.index(n): i for i, n in enumerate(source.gradients)},
            )
        return self._gradients[needed]

    def underived(self, needed: tuple[bool, ...]) -> list[int]:
        """Which of these inputs the program has no gradients of: what is frozen in the
        plan, but the user lets learn, and masks whose gradients are scores."""
        pairs = enumerate(zip(self.inputs, needed, strict=True))
        return [i for i, (name, need) in pairs if need and name not in self.given]

    def _place(self, name: str) -> int:
        """Where a value is among the inputs and what the forward keeps."""
        return (*self.inputs, *self.source.kept).index(name)

    def held(self, tensors: Sequence[Tensor], needed: tuple[bool, ...]) -> Values:
        """What is saved of the inputs: parameters take no memory, activations do."""
        every = self.saves_all(needed)
        pairs = zip(tensors, self.saves, strict=True)
        return [tensor if saves or every else None for tensor, saves in pairs]

    def saves_all(self, needed: tuple[bool, ...]) -> bool:
        """Whether the forward may have to be run once more."""
        return _TWICE.get() or bool(self.underived(needed))

    def rereads(self, needed: tuple[bool, ...]) -> frozenset[int]:
        """The places of the inputs that `back` reads now."""
        places = range(len(self.inputs))
        if torch.is_grad_enabled() or self.underived(needed):
            return frozenset(places)
        return frozenset(self.gradients(needed).reads) & {*places}


@dataclass(frozen=True)
class Gradients:
    """The generated backward for some of the inputs."""

    run: Run
    reads: Sequence[int]
    gives: dict[int, int]
    """By the place of an input: which of the gradients is its."""

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
        held = together.held(tensors, ctx.needs_input_grad[1:])
        ctx.save_for_backward(*held, *values[count:])
        return values[0] if count == 1 else values[:count]

    @staticmethod
    def backward(ctx: Any, *adjoints: Tensor) -> Any:
        together: Together = ctx.together
        count = len(together.inputs)
        saved = ctx.saved_tensors  # checkpointing lets them be read once
        needed = ctx.needs_input_grad[1:]
        found = together.back(needed, saved[:count], saved[count:], adjoints)
        return None, *map(found.get, range(count))
