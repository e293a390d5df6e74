"""The random numbers of generated kernels, in torch.

In: a seed and the shape of a mask.  Out: where a kernel with this seed keeps elements.
A number is Triton's: Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", 2011) of ten rounds, of the place of an element, in a stream for each mask.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from peftc.expr.joint_program import Drawn

ROUNDS = 10
FACTORS = (0xD2511F53, 0xCD9E8D57)
KEYS = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF
SCALE = 4.6566127342e-10
"""The largest number below one, divided by the largest of 31 bits."""
AT_ONCE = 1 << 22
"""Elements of 8 bytes that are computed together; there are several such values."""


def kept(masks: Sequence[Drawn], seed: Tensor, tokens: int) -> tuple[Tensor, ...]:
    """For each mask, of [tokens, ...]: where it is not zero.

    Kernels number elements in 32 bits, so that larger masks repeat.
    """
    return tuple(
        torch.cat([*_parts(seed + stream, tokens * prod(mask.shape), mask.p)]).view(
            tokens, *mask.shape
        )
        for stream, mask in enumerate(masks)
    )


def _parts(seed: Tensor, size: int, p: float) -> Iterator[Tensor]:
    for start in range(0, max(size, 1), AT_ONCE):
        end = min(start + AT_ONCE, size)
        places = torch.arange(start, end, device=seed.device)
        yield uniform(seed, places & WORD) >= p


def uniform(seed: Tensor, places: Tensor) -> Tensor:
    """Numbers of float32 in [0, 1): one for each of the places, whole numbers of 64
    bits, as `tl.rand(seed, places)` gives them."""
    c0, c1 = places & WORD, (places >> 32) & WORD
    c2, c3 = torch.zeros_like(places), torch.zeros_like(places)
    k0, k1 = seed & WORD, (seed >> 32) & WORD
    for _ in range(ROUNDS):
        (high0, low0), (high2, low2) = (
            _product(FACTORS[0], c0),
            _product(FACTORS[1], c2),
        )
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + KEYS[0]) & WORD, (k1 + KEYS[1]) & WORD
    number = c0.to(torch.int32)
    return torch.where(number < 0, ~number, number).float() * SCALE


def _product(factor: int, value: Tensor) -> tuple[Tensor, Tensor]:
    """The upper and the lower half of a product of two numbers of 32 bits."""
    middle = factor * (value >> 16) + (factor * (value & 0xFFFF) >> 16)
    return middle >> 16, (factor * value) & WORD
