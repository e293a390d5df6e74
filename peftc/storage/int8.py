"""Whole numbers from -127 to 127 for each row (LLM.int8(), arXiv 2208.07339).

A row is all weights of one output.  The arithmetic is that of bitsandbytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.storage.table import Options, Shape

LARGEST = 127.0


def encode(weight: torch.Tensor, options: Options) -> dict[str, torch.Tensor]:
    """Codes of the weight's shape, and the largest absolute value of each row."""
    wide = weight.float()
    absmax = wide.abs().amax(-1)
    factor = torch.where(absmax > 0, LARGEST / absmax, 0.0)
    codes = torch.round(wide * factor.unsqueeze(-1)).clamp(-LARGEST, LARGEST)
    return {"codes": codes.to(torch.int8), "absmax": absmax}


def decode(
    parts: Mapping[str, torch.Tensor], shape: Shape, options: Options
) -> torch.Tensor:
    """The weight [*lead, out, in] in float32."""
    scale = parts["absmax"].unsqueeze(-1) / LARGEST
    return (parts["codes"].float() * scale).reshape(shape)
