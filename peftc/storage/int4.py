"""Whole numbers of 4 bits for each group of a row.

Symmetric: from -7 to 7, stored with 8 added.  Else from 0 to 15 with a zero point,
over a range that holds 0.  A group ends with its row, the last may be shorter.  Codes,
two in a byte, run over the rows without a gap.  The arithmetic is that of torchao.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.storage.table import Options, Shape

OFFSET = 8
LEAST = torch.finfo(torch.float32).tiny
"""The least scale: that of a group of zeros."""


def encode(weight: torch.Tensor, options: Options) -> dict[str, torch.Tensor]:
    """Codes, the scale of each group, and unless symmetric its zero point."""
    groups = _grouped(weight.float(), int(options["group"]))
    if options["symmetric"]:
        scale = (groups.abs().amax(-1) / 7).clamp(min=LEAST)
        codes = torch.round(groups * (1.0 / scale).unsqueeze(-1)).clamp(-7, 7) + OFFSET
        return {"codes": _packed(codes, weight.shape), "scale": scale}
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=LEAST)
    zero = (-torch.round(low / scale)).clamp(0, 15)
    codes = torch.round(groups * (1.0 / scale).unsqueeze(-1)) + zero.unsqueeze(-1)
    packed = _packed(codes.clamp(0, 15), weight.shape)
    return {"codes": packed, "scale": scale, "zero": zero.to(torch.uint8)}


def _grouped(weight: torch.Tensor, group: int) -> torch.Tensor:
    """[*lead, in] as [*lead, groups, group]; a short last group filled with zeros."""
    filled = F.pad(weight, (0, -weight.shape[-1] % group))
    return filled.reshape(*weight.shape[:-1], -1, group)


def _packed(codes: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    flat = codes.flatten(-2)[..., : shape[-1]].reshape(-1).to(torch.uint8)
    flat = F.pad(flat, (0, flat.numel() % 2))
    return (flat[::2] << 4) | flat[1::2]


def decode(
    parts: Mapping[str, torch.Tensor], shape: Shape, options: Options
) -> torch.Tensor:
    """The weight [*lead, out, in] in float32."""
    packed, group = parts["codes"], int(options["group"])
    both = torch.stack([packed >> 4, packed & 15], -1).reshape(-1)
    codes = both[: prod(shape)].reshape(shape).float()
    zero = parts.get("zero")
    offset = OFFSET if zero is None else _spread(zero.float(), group, shape)
    return (codes - offset) * _spread(parts["scale"], group, shape)


def _spread(values: torch.Tensor, group: int, shape: Shape) -> torch.Tensor:
    """A value of each group at each of its weights: [*lead, groups] as [*lead, in]."""
    return values.repeat_interleave(group, -1)[..., : shape[-1]]
