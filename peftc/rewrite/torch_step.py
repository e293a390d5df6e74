"""Planned steps whose functions are lines of torch.

In: a `JointProgram`.  Out: a `TorchStep`, which runs what `codegen.torch_source` says.
Gradients of gradients are those of the same functions, run once more on what has a
gradient.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from peftc.codegen.torch_source import Source, torch_source
from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import GradientsOnce
from peftc.expr.evaluate import MAPS, apply_call
from peftc.rewrite.step import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from peftc.expr.joint_program import JointProgram
    from peftc.rewrite.step import Run, Values


class TorchStep(Together):
    """A step whose functions are lines of torch."""

    source: Source

    def __init__(
        self, program: JointProgram, biases: frozenset[str], wide: str = ""
    ) -> None:
        super().__init__(program, biases, wide)
        self.again = _function(self.source.again, "again")

    def forward(self) -> tuple[Source, Run]:
        """The function that gives the results, and what is kept for all gradients."""
        source = self._written(self.given)
        return source, _function(source.forward, "forward")

    def backward(self, wanted: set[str]) -> tuple[Source, Run]:
        """The function that gives these gradients."""
        source = self._written(wanted)
        return source, _function(source.backward, "backward")

    def _written(self, wanted: set[str]) -> Source:
        return torch_source(self.program, wanted, biases=self.biases, wide=self.wide)

    def back(
        self,
        needed: tuple[bool, ...],
        inputs: Values,
        kept: Values,
        adjoints: Sequence[Tensor],
    ) -> dict[int, Tensor]:
        """The gradients of these of the inputs, by their places."""
        gradients, underived = self.gradients(needed), self.underived(needed)
        if torch.is_grad_enabled():
            kept = self.repeat(inputs, kept)[len(adjoints) :]
        found = gradients(adjoints, (*inputs, *kept))
        if underived:
            found |= _by_autograd(self, (inputs, kept), adjoints, underived)
        return found

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


def _by_autograd(
    together: TorchStep,
    saved: tuple[Values, Values],
    adjoints: Values,
    underived: Sequence[int],
) -> dict[int, Tensor]:
    """Gradients by torch, of the forward run once more."""
    (inputs, kept), twice = saved, torch.is_grad_enabled()
    with torch.enable_grad():
        values = [v if twice or v is None else v.detach() for v in inputs]
        leaves = [v for i in underived if (v := values[i]) is not None]
        if not twice:
            leaves = [leaf.requires_grad_() for leaf in leaves]
        pairs = zip(together.repeat(values, kept), adjoints, strict=False)
        reached = [(value, dy) for value, dy in pairs if value.requires_grad]
        results, seeds = zip(*reached, strict=True)
    found = torch.autograd.grad(
        results, leaves, seeds, allow_unused=True, create_graph=twice
    )
    return dict(zip(underived, found, strict=True))


def _function(text: str, name: str) -> Run:
    names: dict[str, Any] = {"torch": torch, "F": F, "call": apply_call, **MAPS}
    exec(compile(text, f"<{name} of a site>", "exec"), names)
    function: Run = names[name]
    return function


@lru_cache(maxsize=256)
def together(
    program: JointProgram, biases: frozenset[str] = frozenset(), wide: str = ""
) -> TorchStep:
    """The function of a program: equal programs have one.

    Raises:
        NoSourceError: if a step has no form.
    """
    return TorchStep(program, biases, wide)
