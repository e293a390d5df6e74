"""NF4: levels that hold equally many weights of a normal distribution.

Dettmers et al. 2023, arXiv 2305.14314.  The levels are those of the paper's appendix,
as float32 rounds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.storage import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from peftc.storage.table import Options, Shape

LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)


def encode(weight: torch.Tensor, options: Options) -> dict[str, torch.Tensor]:
    """See `blocks.encode`."""
    return blocks.encode(weight, options, LEVELS)


def decode(
    parts: Mapping[str, torch.Tensor], shape: Shape, options: Options
) -> torch.Tensor:
    """See `blocks.decode`."""
    return blocks.decode(parts, shape, options, LEVELS)
