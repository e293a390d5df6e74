"""Which elements are kept: exact numbers of the largest scores.

In: scores, a tensor for each place.  Out: masks of ones and zeros in the same shapes.
Equal scores are told apart by their order, so that counts are exact.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SLACK = 1e-9
"""Shares of whole numbers are not always whole in binary: 0.3 * 10 is below 3."""


def removed(share: float, count: int) -> int:
    """How many of `count` elements a share of them is, rounded down."""
    return math.floor(share * count + SLACK)


def largest(scores: Tensor, keep: int) -> Tensor:
    """A mask of the `keep` largest scores; of equal ones the first are kept."""
    flat = scores.flatten()
    order = flat.argsort(descending=True, stable=True)[:keep]
    mask = torch.zeros_like(flat, dtype=torch.float32)
    return mask.index_fill(0, order, 1.0).view_as(scores)


def by_tensor(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Each tensor loses the same share."""
    return [largest(s, s.numel() - removed(sparsity, s.numel())) for s in scores]


def by_row(scores: Sequence[Tensor], sparsity: float) -> list[Tensor]:
    """Each row (the last axis) loses the same share."""
    return [by_group(s, s.shape[-1], sparsity) for s in scores]


def by_group(scores: Tensor, size: int, sparsity: float) -> Tensor:
    """Of every `size` elements in a row of the last axis the same share is lost."""
    groups = scores.reshape(-1, size)
    keep = size - removed(sparsity, size)
    order = groups.argsort(dim=-1, descending=True, stable=True)[:, :keep]
    mask = torch.zeros_like(groups, dtype=torch.float32)
    return mask.scatter(-1, order, 1.0).view_as(scores)


def together(scores: Sequence[Tensor], keep: int, least: int = 0) -> list[Tensor]:
    """The `keep` largest of all tensors; each keeps `least` elements at any rate."""
    raised = [_raised(s, min(least, s.numel())) for s in scores]
    mask = largest(torch.cat([s.flatten() for s in raised]), keep)
    parts = mask.split([s.numel() for s in scores])
    return [part.view_as(s) for part, s in zip(parts, scores, strict=True)]


def _raised(scores: Tensor, least: int) -> Tensor:
    """Scores whose `least` largest are above all others of all tensors."""
    if not least:
        return scores
    return torch.where(largest(scores, least) > 0, torch.inf, scores)


def densities(shapes: Sequence[Sequence[int]], density: float) -> list[float]:
    """Of Erdos-Renyi masks: each matrix keeps a share by its shape, 1 at most.

    A matrix [.., m, n] keeps e (m + n) / (m n) with one e for all, such that all
    together keep `density`; where that is above 1, it is 1 and e is found anew.
    """
    sizes = [math.prod(shape) for shape in shapes]
    raw = [(shape[-1] + shape[-2]) / (shape[-1] * shape[-2]) for shape in shapes]
    full: set[int] = set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in full]
        left = density * sum(sizes) - sum(sizes[i] for i in full)
        scale = left / sum(raw[i] * sizes[i] for i in rest) if rest else 0.0
        above = {i for i in rest if raw[i] * scale > 1}
        if not above:
            return [1.0 if i in full else raw[i] * scale for i in range(len(shapes))]
        full |= above


def by_shape(scores: Sequence[Tensor], density: float) -> list[Tensor]:
    """Erdos-Renyi masks of exactly the given density of all elements together."""
    shares = densities([s.shape for s in scores], density)
    sizes = [s.numel() for s in scores]
    counts = apportioned([a * n for a, n in zip(shares, sizes, strict=True)], sizes)
    return [largest(s, keep) for s, keep in zip(scores, counts, strict=True)]


def apportioned(shares: Sequence[float], limits: Sequence[int]) -> list[int]:
    """Whole numbers near some shares, with their sum; the largest remainders gain."""
    counts = [math.floor(share + SLACK) for share in shares]
    missing = round(sum(shares)) - sum(counts)
    rests = [share - count for share, count in zip(shares, counts, strict=True)]
    for index in sorted(range(len(rests)), key=lambda i: -rests[i]):
        if missing > 0 and counts[index] < limits[index]:
            counts[index] += 1
            missing -= 1
    return counts
