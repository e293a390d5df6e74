"""Planned steps whose functions launch generated kernels.

In: a `JointProgram`.  Out: a `KernelStep`, which runs what `codegen.kernels` says.
Torch's functions of the same program stand beside: gradients of gradients are theirs.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from peftc.codegen.kernels.template import SEED
from peftc.rewrite.generated import generated
from peftc.rewrite.operators import operator
from peftc.rewrite.philox import kept as keep
from peftc.rewrite.reference import as_torch
from peftc.rewrite.step import Together
from peftc.rewrite.torch_step import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from peftc.codegen.kernels.source import KernelSource
    from peftc.rewrite.generated import Direction
    from peftc.rewrite.step import Run, Values


class KernelStep(Together):
    """A step whose functions launch kernels.

    Raises:
        NoSourceError: if a step of the program has no form.
        PeftcError: if Triton is not installed.
    """

    source: KernelSource

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return "kernels"

    def step(self, flat: Sequence[Tensor]) -> Any:
        """The values; where nothing has a gradient, nothing is kept for one."""
        if torch.is_grad_enabled():
            return super().step(flat)
        count = len(self.source.results)
        found = self._bare(*flat)
        return found[0] if count == 1 else found[:count]

    def forward(self) -> tuple[KernelSource, Run]:
        """The function that gives the results, and what is kept for all gradients."""
        return self._made("forward", self.given)

    def backward(self, wanted: set[str]) -> tuple[KernelSource, Run]:
        """The function that gives these gradients."""
        return self._made("backward", wanted)

    @cached_property
    def _bare(self) -> Run:
        """The forward that keeps nothing."""
        return self._made("forward", set())[1]

    def _made(self, way: Direction, wanted: set[str]) -> tuple[KernelSource, Run]:
        ordered = tuple(sorted(wanted))
        made = generated(self.program, self.biases, self.wide, way, ordered)
        return made.source, operator(made)

    def back(
        self,
        needed: tuple[bool, ...],
        inputs: Values,
        kept: Values,
        adjoints: Sequence[Tensor],
    ) -> dict[int, Tensor]:
        """The gradients of these of the inputs, by their places."""
        if torch.is_grad_enabled() or self.underived(needed):
            plain = together(self.program, self.biases, self.wide)
            return plain.back(needed, inputs, self._as_torch(kept, adjoints), adjoints)
        return self.gradients(needed)(adjoints, (*inputs, *kept))

    def _as_torch(self, kept: Values, adjoints: Sequence[Tensor]) -> Values:
        """What torch's forward would have kept, with masks in place of their seed."""
        names = self.source.kept
        named = {n: v for n, v in zip(names, kept, strict=True) if v is not None}
        dy = adjoints[0]
        named |= as_torch(self.program, {"dy": dy, **named}, self.wide)
        seed = named.pop(SEED, None)
        masks = () if seed is None else keep(self.program.masks, seed, dy.shape[0])
        return (*named.values(), *masks)
