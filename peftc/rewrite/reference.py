"""What a generated kernel function computes, by torch.

In: a `Generated`.  Out: a function of the same tensors with the same results.  Masks
are those that the kernel draws, from the same seed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, TypeAlias

import torch

from peftc.codegen.kernels.template import SEED
from peftc.codegen.torch_writer import base_weight, drawn
from peftc.rewrite.launch import draw
from peftc.rewrite.philox import kept
from peftc.rewrite.torch_step import TorchStep, together

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram
    from peftc.rewrite.generated import Generated

Tensors: TypeAlias = "Sequence[Tensor]"


class Reference(ABC):
    """A kernel function by torch."""

    def __init__(self, function: Generated) -> None:
        self.function = function
        self.own = together(function.program, function.biases, function.wide)
        self.exact = together(function.program, function.biases)

    @torch.no_grad()
    def __call__(
        self, tensors: Tensors, found: Tensors | None = None, exact: bool = False
    ) -> tuple[Tensor, ...]:
        """The results; with the random numbers of what was `found`, and `exact` if all
        is computed in a type of twice as many digits."""
        if exact:
            return self._run(self.exact, wide(tensors), found)
        return self._run(self.own, tensors, found)

    @abstractmethod
    def _run(
        self, form: TorchStep, given: Tensors, found: Tensors | None
    ) -> tuple[Tensor, ...]:
        """The results by a step of torch."""


def reference(function: Generated) -> Reference:
    """The same function by torch."""
    return (_Forward if function.direction == "forward" else _Backward)(function)


class _Forward(Reference):
    def _run(
        self, form: TorchStep, given: Tensors, found: Tensors | None
    ) -> tuple[Tensor, ...]:
        masks, x = form.program.masks, given[form.first]
        seed = [draw(x) if found is None else found[-1]] if masks else []
        keep = kept(masks, seed[0], x.shape[0]) if seed else ()
        values = form.again(*given, *keep)
        count = len(form.source.results)
        left = dict(zip(form.source.kept, values[count:], strict=True))
        needed = (name for name in self.function.source.kept if name != SEED)
        return (*values[:count], *(left[name] for name in needed), *seed)


class _Backward(Reference):
    def _run(
        self, form: TorchStep, given: Tensors, found: Tensors | None
    ) -> tuple[Tensor, ...]:
        known = dict(zip(self.function.takes, given, strict=True))
        known |= as_torch(form.program, known, form.wide)
        if SEED in known:
            masks = form.program.masks
            keep = kept(masks, known[SEED], given[0].shape[0])
            known |= dict(zip(map(drawn, masks), keep, strict=True))
        wanted = {*self.function.wanted}
        gradients = form.gradients(tuple(name in wanted for name in form.inputs))
        names = (*form.inputs, *form.source.kept)
        adjoints = given[: len(form.source.results)]
        return gradients.run(*adjoints, *(known[names[i]] for i in gradients.reads))


def as_torch(
    program: JointProgram, kept: Mapping[str, Tensor], wide: str
) -> dict[str, Tensor]:
    """Steps that kernels kept, in the types in which torch's functions keep them.

    What is computed from parameters alone, kernels keep in float32.
    """
    like = next(iter(kept.values())).dtype
    dtype = getattr(torch, wide.removeprefix("torch.")) if wide else like
    own = (s.out for s in program.forward.steps if not base_weight(s))
    return {
        name: kept[name].to(dtype)
        for name in own
        if name in kept and kept[name].is_floating_point()
    }


def wide(tensors: Tensors) -> list[Tensor]:
    """The same numbers in a type that has twice as many digits."""
    types = {t.dtype for t in tensors if t.is_floating_point()}
    narrow = types <= {torch.float16, torch.bfloat16}
    to = torch.float32 if narrow else torch.float64
    return [t.to(to) if t.is_floating_point() else t for t in tensors]
