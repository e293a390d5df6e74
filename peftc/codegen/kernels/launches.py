"""What the choice of a kernel's block sizes depends on.

In: a kernel and what wrote it.  Out: a `Launch`, which a schedule is chosen for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftc.codegen.kernels.parts import Kernel, Template
    from peftc.codegen.kernels.template import Writer


@dataclass(frozen=True)
class Launch:
    """A kernel as its schedule sees it."""

    template: Template
    width: int
    """The elements of the wide axis that its programs divide, or 0."""
    widest: int
    """The longest small axis, padded, or 0."""
    sums: int
    """The most sums that one loop keeps."""


def launch_of(kernel: Kernel, writer: Writer) -> Launch:
    """What a kernel's schedule depends on."""
    spaces = writer.around.direction.spaces
    space = kernel.phases[0].space
    divided = kernel.is_flat or kernel.template == "column"
    return Launch(
        kernel.template,
        spaces.size(space) if space and divided else 0,
        max((int(axis.length) for axis in writer.small.values()), default=0),
        max(len(phase.sums) for phase in kernel.phases),
    )
