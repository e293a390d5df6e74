"""A joint program: the values of a site and their gradients, ordered together.

Made by `expr.joint` from a composed equation; printed by `codegen.joint_text`.  Values
and steps are those of `expr.program`; the backward's steps also read the adjoints of
the results (`dy`) and what is kept of the forward, and nothing else of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftc.expr.cost import Machine
    from peftc.expr.program import Input, Step


@dataclass(frozen=True)
class Direction:
    """The forward or the backward: its steps, and named values of their results.

    `flops` and `bytes` are per token (first) and per call (second).
    """

    steps: tuple[Step, ...]
    results: tuple[tuple[str, str], ...]
    flops: tuple[int, int]
    bytes: tuple[int, int]


@dataclass(frozen=True)
class Drawn:
    """A mask: zero with probability `p`, else 1 / (1 - p)."""

    name: str
    shape: tuple[int, ...]
    tokens: str
    """The token axes it has, of `bt`."""
    p: float


@dataclass(frozen=True)
class Kept:
    """A value of the forward, or an activation it read, that the backward reads."""

    name: str
    shape: tuple[int, ...]
    tokens: str
    """The token axes it has, of `bt`."""
    bytes: int
    """For each element of the token axes."""


@dataclass(frozen=True)
class JointProgram:
    """Forward and backward.

    The forward's results are the values that are replaced (`y`); the backward's are
    gradients, of activations (`x`) and of trained tensors by name.  What has none is
    not listed: its gradient is zero.

    `kept` is what lives from one to the other, beside parameters and masks; `again`
    names steps of the forward that the backward does once more instead.  `masks` are
    drawn for each call and are no inputs.  `seeds` says which products with the base's
    weight were settled before the rest was ordered (`all` that either direction has),
    and `uncharged` if matrices of parameters were not charged for their gradients.
    """

    inputs: tuple[Input, ...]
    masks: tuple[Drawn, ...]
    forward: Direction
    backward: Direction
    kept: tuple[Kept, ...]
    again: tuple[str, ...]
    separate_tokens: bool
    seeds: str
    microseconds: float
    machine: Machine
    """What was planned for, by whose roofline it takes the microseconds."""
