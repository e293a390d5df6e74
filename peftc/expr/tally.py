"""What the steps of a program take: flops and bytes, per token and per call.

A step that reads or gives activations counts for each token; what it reads of parameter
space, and steps in parameter space, count once a call.  The site's own linear is not
counted once more where the program applies it instead of using its output.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftc.expr.program import Input, Step

FREE = ("view", "base", "product")


def tally(
    inputs: Iterable[Input],
    steps: Sequence[Step],
    element: int,
    before: Sequence[Step] = (),
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(flops per token, per call) and (bytes per token, per call) of `steps`.

    They may read what the steps `before` them gave.
    """
    values: dict[str, Input | Step] = {value.name: value for value in inputs}
    values |= {step.out: step for step in (*before, *steps)}
    flops, moved = [0, 0], [0, 0]
    for step in steps:
        if step.op in FREE:
            continue
        active = step.tokens or any(values[name].tokens for name in step.args)
        flops[not active] += _flops(step, values)
        for value in (step, *(values[name] for name in step.args)):
            moved[not value.tokens] += element * math.prod(value.shape)
    return (flops[0], flops[1]), (moved[0], moved[1])


def _flops(step: Step, values: Mapping[str, Input | Step]) -> int:
    if step.op == "linear":
        return 2 * math.prod(values[step.args[1]].shape)
    if step.op == "ein":
        return _products(step, values)
    if step.op == "call":
        return 0
    return math.prod(step.shape) * len(step.args)


def _products(step: Step, values: Mapping[str, Input | Step]) -> int:
    before, _, out = step.spec.partition("->")
    size: dict[str, int] = {}
    for row, name in zip(before.split(","), step.args, strict=True):
        letters = [letter for letter in row if letter not in "*bt"]
        size |= zip(letters, values[name].shape, strict=True)
    sums = set(before) - set(out) - {","}
    return math.prod(size.values()) * (2 if sums else 1)
