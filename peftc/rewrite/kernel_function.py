"""Linears of one activation and their programs as one step, by generated kernels.

In: a `JointProgram`, of one site or of several that are grouped.  Out: a
`KernelFunction`, called with the activation, the bases' weights and the added tensors,
as `inputs` names them.  Autograd keeps what the source says and nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

from peftc.codegen.kernels.source import KernelSource, kernel_source
from peftc.rewrite.launch import load

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram


class KernelFunction:
    """A function of the tensors that `inputs` names.

    Activations are [..., features]; a result has the token axes of `x`.  Of several
    sites it gives a tuple.

    Raises:
        NoSourceError: if a step has no form.
        PeftcError: if Triton is not installed.
    """

    def __init__(self, program: JointProgram, biases: frozenset[str]) -> None:
        self.program = program
        self.biases = biases
        self.given = {name for name, _ in program.backward.results}
        self.source = kernel_source(program, self.given, biases)
        self.inputs = self.source.inputs
        self.active = {"x", *(i.name for i in program.inputs if i.tokens)}
        self.run = load(self.source, "forward")
        self._backwards: dict[
            tuple[str, ...], tuple[KernelSource, Callable[..., Any]]
        ] = {}

    def __call__(self, *tensors: Tensor) -> Any:
        """The values that the program replaces."""
        given = [
            t.reshape(-1, t.shape[-1]) if name in self.active else t
            for name, t in zip(self.inputs, tensors, strict=True)
        ]
        lead = tensors[self.inputs.index("x")].shape[:-1]
        found: Any = _Step.apply(self, *given)  # type: ignore[no-untyped-call]
        if isinstance(found, tuple):
            return tuple(one.reshape(*lead, one.shape[-1]) for one in found)
        return found.reshape(*lead, found.shape[-1])

    def backward_for(
        self, wanted: tuple[str, ...]
    ) -> tuple[KernelSource, Callable[..., Any]]:
        """The function that gives these gradients."""
        if wanted not in self._backwards:
            source = kernel_source(self.program, wanted, self.biases)
            self._backwards[wanted] = source, load(source, "backward")
        return self._backwards[wanted]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: KernelFunction, *tensors: Tensor) -> Any:
        values = function.run(*tensors)
        count = len(function.source.results)
        kept = values[count:]
        names = (*function.inputs, *function.source.kept)
        known = dict(zip(names, (*tensors, *kept), strict=True))
        ctx.function = function
        ctx.save_for_backward(*(known[name] for name in function.source.saved))
        return values[0] if count == 1 else values[:count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *adjoints: Tensor) -> Any:
        function: KernelFunction = ctx.function
        pairs = zip(function.inputs, ctx.needs_input_grad[1:], strict=True)
        wanted = tuple(n for n, needed in pairs if needed and n in function.given)
        source, run = function.backward_for(wanted)
        saved = dict(zip(function.source.saved, ctx.saved_tensors, strict=True))
        found = run(*adjoints, *(saved[name] for name in source.saved))
        gradients = dict(zip(source.gradients, found, strict=True))
        return None, *(gradients.get(name) for name in function.inputs)
