"""A generated kernel function that is compared with torch's before it is believed.

In: two functions of the same tensors.  Out: a `Checked`, called as either.  At the
first call of each kind (device, types, layouts, how many tokens) both run, and torch's
once more in a wider type, from which neither may be far.  A kernel that is wrong or
fails is not used for calls of this kind again; its place is taken by torch, a warning
says so, and what shows it again is written to disk.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, TypeAlias

import torch

from peftc.diagnostics.rewrite import KernelRefused
from peftc.rewrite.disagreement import write
from peftc.rewrite.launch import load
from peftc.rewrite.reference import reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from peftc.rewrite.generated import Generated

Tensors: TypeAlias = "Sequence[Tensor]"
Kind: TypeAlias = tuple[object, ...]

TIMES = 4
"""How much farther a kernel may be than torch is with the same types."""
UNITS = 8
"""And so many units in the last place of the largest element beside: where torch
happens to be exact, sums in another order are not."""
ROWS = 1024
"""Tokens that are compared where all of them do not fit into memory thrice."""


class Disagreement(Exception):
    """A kernel gives something else than torch."""

    def __init__(self, name: str, error: float) -> None:
        super().__init__(f"`{name}` is wrong by {error:.2g} of its largest element")


class Checked:
    """A generated function, or torch where the kernel was refused.

    Raises:
        PeftcError: if Triton is not installed.
    """

    def __init__(self, function: Generated) -> None:
        self.function = function
        self.kernel = load(function.source, function.direction)
        self.reference = reference(function)
        self._verdicts: dict[Kind, bool] = {}

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The function's results."""
        kind = self.kind(tensors)
        verdict = self._verdicts.get(kind)
        if verdict is None:
            return self._first(kind, tensors)
        return self.kernel(*tensors) if verdict else self.reference(tensors)

    def kind(self, tensors: Tensors) -> Kind:
        """What a kernel's code or its schedule may depend on."""
        pairs = zip(tensors, self.function.tokens, strict=True)
        active = [tensor for tensor, has in pairs if has]
        n = active[0].shape[0]
        steps = tuple((t.stride(0) % 16, t.stride(-1) == 1) for t in active)
        types = tuple(t.dtype for t in tensors)
        return active[0].device, types, n.bit_length(), n % 16 == 0, steps

    def check(self, tensors: Tensors) -> tuple[Tensor, ...]:
        """The kernel's results, if they are right.

        Raises:
            Disagreement: if they are not.
            Exception: whatever stops the kernel.
        """
        found: tuple[Tensor, ...] = self.kernel(*tensors)
        try:
            self._compare(tensors, found)
        except torch.OutOfMemoryError:
            pairs = zip(tensors, self.function.tokens, strict=True)
            first = [t[:ROWS].contiguous() if has else t for t, has in pairs]
            self._compare(first, self.kernel(*first))
        return found

    def _first(self, kind: Kind, tensors: Tensors) -> tuple[Tensor, ...]:
        try:
            found = self.check(tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # Whatever stops a kernel, torch can do its work.
            self._verdicts[kind] = False
            self._refuse(f"{type(error).__name__}: {error}", tensors)
            return self.reference(tensors)
        self._verdicts[kind] = True
        return found

    def _refuse(self, problem: str, tensors: Tensors) -> None:
        line = problem.splitlines()[0][:200]
        folder = write(self.function, tensors, problem)
        kernel = self.function.title
        said = KernelRefused(kernel=kernel, problem=line, folder=folder.name)
        warnings.warn(str(said), stacklevel=2)

    def _compare(self, tensors: Tensors, found: Tensors) -> None:
        own = self.reference(tensors, found)
        exact = self.reference(tensors, found, exact=True)
        eps = max(torch.finfo(t.dtype).eps for t in tensors if t.is_floating_point())
        names = self.function.gives
        for name, a, b, c in zip(names, found, own, exact, strict=True):
            if not a.is_floating_point():
                continue
            error, torchs = distance(a, b, c)
            if not error <= TIMES * torchs + UNITS * eps:
                raise Disagreement(name, error)


def distance(found: Tensor, own: Tensor, exact: Tensor) -> tuple[float, float]:
    """How far the first two are from the third, as parts of its largest element.

    Where torch has no number either, none is expected; NaN elsewhere is infinitely far.
    """
    assert found.shape == own.shape == exact.shape
    numbers = own.isfinite() & exact.isfinite()
    exact = torch.where(numbers, exact, 0)
    largest = exact.abs().max().clamp(min=torch.finfo(exact.dtype).tiny)
    errors = (
        torch.where(numbers, one.to(exact.dtype) - exact, 0).abs().max() / largest
        for one in (found, own)
    )
    first, second = (float(e.nan_to_num(nan=torch.inf)) for e in errors)
    return first, second
