"""A row kernel for few tokens, of which it would leave most of a device idle.

In: a row kernel.  Out: the same work as kernels of the template `split`, one for each
of its phases: a program owns a block of tokens and a part of the features.

A sum over features is left in parts, in float32.  The next kernel adds them in their
order, each of its programs for itself, and computes the narrow values that follow; the
programs of the first part store both.
"""

from __future__ import annotations

from peftc.codegen.kernels.parts import Kernel, Phase


def split(kernel: Kernel) -> tuple[Kernel, ...]:
    """The kernels that do a row kernel's work; none if it has nothing to split.

    Each has two phases: the end of what came before, and a loop over features.
    """
    if kernel.template != "row" or kernel.is_flat:
        return ()
    found, ended = [], Phase(None)
    for phase in kernel.phases:
        if phase.space is not None:
            own = Phase(phase.space, phase.sums, phase.stores)
            found.append(Kernel("split", (ended, own)))
        ended = Phase(None, phase.sums, narrow=phase.narrow)
    if found and (ended.sums or ended.narrow):
        found.append(Kernel("split", (ended, Phase(None))))
    return tuple(found)
