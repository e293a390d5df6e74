"""What is known of a kernel by those who compile and launch it.

In: a kernel and what wrote it.  Out: a `Launch`, which a schedule is chosen for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.codegen.kernels.template import SEED

if TYPE_CHECKING:
    from peftc.codegen.kernels.parts import Kernel
    from peftc.codegen.kernels.template import Writer

Grid: TypeAlias = Literal["row", "flat", "column", "split"]
"""Blocks of tokens; of tokens by features; of features by parts of the tokens; of
tokens by parts of the features."""
Argument: TypeAlias = Literal["value", "float32", "seed", "step", "count"]
"""A value in the type of the activations, one in float32, the seed, the distance of an
activation's rows, or the number of parts."""


@dataclass(frozen=True)
class Launch:
    """A kernel as its schedule sees it."""

    grid: Grid
    width: int
    """The elements of the wide axis that its programs divide, or 0."""
    widest: int
    """The longest small axis, padded, or 0."""
    arguments: tuple[Argument, ...]
    """But for the number of tokens, which is the last, and constants."""


def launch_of(kernel: Kernel, writer: Writer) -> Launch:
    """What is known of a kernel that was written."""
    spaces = writer.around.direction.spaces
    space = kernel.phases[0].space
    grid: Grid = "flat" if kernel.is_flat else kernel.template
    pointers = [_argument(name, kernel, writer) for name in writer.pointers]
    steps: list[Argument] = ["step" for _ in writer.strides]
    counts: list[Argument] = ["count"]
    return Launch(
        grid,
        spaces.size(space) if space and grid != "row" else 0,
        max((int(axis.length) for axis in writer.small.values()), default=0),
        tuple(pointers + steps + counts * (grid == "split")),
    )


def _argument(name: str, kernel: Kernel, writer: Writer) -> Argument:
    """Sums, numbers of tokens and what parameters were computed to are float32."""
    if name == SEED:
        return "seed"
    value = writer.around.known.get(name)
    if value is None:  # a sum in parts
        return "float32"
    made = name in kernel.made and kernel.template == "column"
    computed = name.startswith("%") and not (value.tokens and value.shape)
    return "float32" if made or computed else "value"
