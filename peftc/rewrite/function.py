"""A site's linear and its program as one step of autograd.

In: a `JointProgram`.  Out: a `Together`, called with the activation, the base's weight
and the added tensors; forward and backward are the generated functions of
`codegen.torch_source`, and autograd keeps what these say and nothing else.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from peftc.codegen.torch_source import Source, torch_source
from peftc.expr.evaluate import MAPS, apply_call

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram


class Together:
    """A function of the tensors that `inputs` names.

    Activations are [..., features]; what comes out has the token axes of `x`.
    """

    def __init__(self, program: JointProgram, biased: bool) -> None:
        self.program = program
        self.biased = biased
        gradients = tuple(name for name, _ in program.backward.results)
        self.source = torch_source(program, gradients, biased=biased)
        self.inputs = self.source.inputs
        self.active = ("x", *(i.name for i in program.inputs if i.tokens))
        self._forward = _function(self.source.forward, "forward")
        self._backwards: dict[tuple[str, ...], tuple[Source, Callable[..., Any]]] = {}

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return "together"

    def __call__(self, *tensors: Tensor) -> Tensor:
        """The value that the program replaces."""
        given = [
            t.reshape(-1, t.shape[-1]) if name in self.active else t
            for name, t in zip(self.inputs, tensors, strict=True)
        ]
        lead = tensors[self.inputs.index("x")].shape[:-1]
        found: Tensor = _Step.apply(self, *given)  # type: ignore[no-untyped-call]
        return found.reshape(*lead, found.shape[-1])

    def forward(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The result and what is kept."""
        found: tuple[Tensor, ...] = self._forward(*tensors)
        return found

    def backward_for(
        self, wanted: tuple[str, ...]
    ) -> tuple[Source, Callable[..., Any]]:
        """The function that gives these gradients."""
        if wanted not in self._backwards:
            source = torch_source(self.program, wanted, biased=self.biased)
            made = source, _function(source.backward, "backward")
            self._backwards[wanted] = made
        return self._backwards[wanted]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, together: Together, *tensors: Tensor) -> Tensor:
        result, *kept = together.forward(tensors)
        names = (*together.inputs, *together.source.kept)
        known = dict(zip(names, (*tensors, *kept), strict=True))
        ctx.together = together
        ctx.save_for_backward(*(known[name] for name in together.source.saved))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> Any:
        together: Together = ctx.together
        needs = ctx.needs_input_grad[1:]
        pairs = zip(together.inputs, needs, strict=True)
        given = {n for n, _ in together.program.backward.results}
        wanted = tuple(n for n, needed in pairs if needed and n in given)
        source, function = together.backward_for(wanted)
        saved = dict(zip(together.source.saved, ctx.saved_tensors, strict=True))
        found = function(dy, *(saved[name] for name in source.saved))
        gradients = dict(zip(source.gradients, found, strict=True))
        return None, *(gradients.get(name) for name in together.inputs)


def _function(text: str, name: str) -> Callable[..., Any]:
    names: dict[str, Any] = {"torch": torch, "F": F, "call": apply_call, **MAPS}
    exec(compile(text, f"<{name} of a site>", "exec"), names)
    function: Callable[..., Any] = names[name]
    return function


@lru_cache(maxsize=256)
def together(program: JointProgram, biased: bool) -> Together:
    """The function of a program: equal programs have one.

    Raises:
        NoSourceError: if a step has no form.
    """
    return Together(program, biased)
