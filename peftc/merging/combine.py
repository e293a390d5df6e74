"""Several changes of one weight made into one.

In: what each of several adapters would add to a weight, tensors of one shape, and their
weights in the sum.  Out: what is added.

`linear` is task arithmetic (Ilharco et al. 2023, arXiv 2212.04089), `ties` trims,
elects signs and averages what agrees (Yadav et al. 2023, arXiv 2306.01708), `dare`
drops at random and rescales (Yu et al. 2024, arXiv 2311.03099).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.merging import WrongSum
from peftc.runtime.initial import generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

Deltas: TypeAlias = "Sequence[Tensor]"
Way: TypeAlias = "Callable[[Deltas, Sum, str], Tensor]"


@dataclass(frozen=True)
class Sum:
    """How changes are added up.

    `weights` are of the adapters, in their order; `density` is the part of each change
    that `ties` and `dare` keep; `dare` draws by `seed` and the path of the weight.
    """

    weights: tuple[float, ...]
    way: str = "linear"
    density: float = 1.0
    seed: int = 0

    def check(self, count: int) -> None:
        """Raise `PeftcError` (PEFT740) unless this can add up `count` changes."""
        if self.way not in WAYS:
            hint = suggestion(self.way, WAYS)
            known = ", ".join(WAYS)
            raise fail(WrongSum(problem=f"`{self.way}` is none of {known}", hint=hint))
        if len(self.weights) != count:
            problem = f"{len(self.weights)} weights for {count} adapters"
            raise fail(WrongSum(problem=problem, hint="name one for each"))
        if not 0 < self.density <= 1:
            problem = f"a density of {self.density:g} keeps nothing or too much"
            raise fail(WrongSum(problem=problem, hint="a number above 0, up to 1"))

    def of(self, deltas: Deltas, path: str) -> Tensor:
        """The sum of the changes of the parameter at a path."""
        return WAYS[self.way](deltas, self, path)


def _linear(deltas: Deltas, how: Sum, _: str) -> Tensor:
    return _weighted(deltas, how).sum(0)


def _weighted(deltas: Deltas, how: Sum) -> Tensor:
    """[adapters, ...], each times its weight."""
    pairs = zip(deltas, how.weights, strict=True)
    return torch.stack([delta * weight for delta, weight in pairs])


def _ties(deltas: Deltas, how: Sum, _: str) -> Tensor:
    trimmed = [_largest(delta, how.density) for delta in deltas]
    stacked = torch.stack(trimmed)
    sign = torch.where(stacked.sum(0) >= 0, 1, -1)
    agrees = stacked.sign() == sign
    kept = _weighted(trimmed, how) * agrees
    return kept.sum(0) / agrees.sum(0).clamp(min=1)


def _largest(delta: Tensor, density: float) -> Tensor:
    """A change with all but its largest values set to zero."""
    flat = delta.flatten()
    places = flat.abs().topk(int(density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy(0, places, flat[places]).view_as(delta)


def _dare(deltas: Deltas, how: Sum, path: str) -> Tensor:
    dropped = []
    for number, delta in enumerate(deltas):
        stream = generator(how.seed, f"{path}\0{number}", "dare")
        kept = torch.rand(delta.shape, generator=stream) < how.density
        dropped.append(delta * kept.to(delta.device) / how.density)
    return _linear(dropped, how, path)


WAYS: dict[str, Way] = {"linear": _linear, "ties": _ties, "dare": _dare}
"""By name: how changes are added up."""
