"""What gives the rows of an activation their values, where there is a stack of these.

In: what a captured forward was told of the adapters it is given.  Out: the stack of one
value that is replaced: of experts, of samples' adapters, of adapters by weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from peftc.rewrite.insert import example
from peftc.rewrite.samples import ADAPTED, NUMBER, Samples, check_apart
from peftc.rewrite.weighted import Weighted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import fx

    from peftc.expr.program import Program
    from peftc.rewrite.experts import Experts

    Stack: TypeAlias = Experts | Samples | Weighted

SEVERAL = "several"
"""The key in `Capture.tensors`, where others are sites', of what is said of adapters
that are given as stacks."""
WEIGHTS = "weights"
"""The name there of the weight of each adapter."""


def stack_of(
    said: Mapping[str, fx.Node], program: Program, target: fx.Node, site: str
) -> Samples | Weighted:
    """The stack of adapters at one value.

    Raises:
        PeftcError: PEFT458 or PEFT459.
    """
    check_apart(program, site)
    rank, separate = example(target).dim() - 1, program.separate_tokens
    if WEIGHTS in said:
        return Weighted(said[WEIGHTS], rank, separate)
    samples = Samples(said[NUMBER], said.get(ADAPTED), rank, separate)
    samples.check(target, site)
    return samples
