"""FP4: a sign, two bits of exponent and one of fraction, as bitsandbytes has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.storage import blocks

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from peftc.storage.table import Options, Shape

_SIZES = (0, 0.0625 / 12, 8 / 12, 1, 4 / 12, 6 / 12, 2 / 12, 3 / 12)
LEVELS = (*_SIZES, *(-size for size in _SIZES))
"""By code: the fourth bit is the sign.  There are two zeros; small positive numbers are
rounded to the one with the sign, as bitsandbytes does."""


def encode(weight: torch.Tensor, options: Options) -> dict[str, torch.Tensor]:
    """See `blocks.encode`."""
    return blocks.encode(weight, options, LEVELS)


def decode(
    parts: Mapping[str, torch.Tensor], shape: Shape, options: Options
) -> torch.Tensor:
    """See `blocks.decode`."""
    return blocks.decode(parts, shape, options, LEVELS)
