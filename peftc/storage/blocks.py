"""Blocks of a weight by a table of levels: what the 4 bit floating formats share.

In: a weight [*lead, out, in] and the levels of a format, at most 16.  Out: codes, two
in a byte, the first in the high half, and the largest absolute value of each block;
and the weight again.  A block runs over the ends of rows; the last may be shorter.

The arithmetic is that of bitsandbytes, step by step, so that the stored codes are the
same bits.  Values are rounded to the nearest level, midway to the lower one.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

import torch

from peftc.storage.table import SECOND

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftc.storage.table import Options, Shape

LEAST = 1e-38
"""What a block of zeros is divided by."""
AT_ONCE = 2**22
"""Weights that are encoded at a time: encoding needs several bytes for each."""


def encode(
    weight: torch.Tensor, options: Options, levels: Sequence[float]
) -> dict[str, torch.Tensor]:
    """The tensors of `table`, of a weight of any floating type."""
    flat, block = weight.reshape(-1), int(options["block"])
    step = max(AT_ONCE // block, 1) * block * 2  # whole bytes: an even number
    parts = [_encode(flat[i : i + step], block, levels) for i in _starts(flat, step)]
    codes = torch.cat([codes for codes, _ in parts])
    absmax = torch.cat([largest for _, largest in parts])
    if not options["double"]:
        return {"codes": codes, "absmax": absmax}
    return {"codes": codes, **_encode_again(absmax)}


def _starts(flat: torch.Tensor, step: int) -> range:
    return range(0, max(flat.numel(), 1), step)


def _encode(
    flat: torch.Tensor, block: int, levels: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and largest values of some blocks."""
    absmax, scaled = _scaled(flat.float(), block)
    if scaled.numel() % 2:
        scaled = torch.nn.functional.pad(scaled, (0, 1))
    codes = _nearest(scaled, levels).to(torch.uint8)
    return (codes[::2] << 4) | codes[1::2], absmax


def _scaled(flat: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest absolute value of each block, and all values divided by it."""
    full = flat.numel() - flat.numel() % block
    rows = flat[:full].reshape(-1, block)
    absmax = rows.abs().amax(-1) if full else flat.new_empty(0)
    scaled = rows * (1.0 / absmax.clamp(min=LEAST)).unsqueeze(-1)
    scaled = scaled.clamp(-1, 1).reshape(-1)
    if full == flat.numel():
        return absmax, scaled
    rest = flat[full:]
    last = rest.abs().amax().clamp(min=LEAST)
    tail = (rest / last).clamp(-1, 1)
    return torch.cat([absmax, last.reshape(1)]), torch.cat([scaled, tail])


def _nearest(scaled: torch.Tensor, levels: Sequence[float]) -> torch.Tensor:
    """The number of the nearest level; levels need not be in order."""
    table = torch.tensor(levels, device=scaled.device)
    order = sorted(range(len(levels)), key=levels.__getitem__)
    ordered = table[order]
    middles = (ordered[:-1] + ordered[1:]) / 2
    place = torch.bucketize(scaled, middles, out_int32=True)
    if order == list(range(len(levels))):
        return place
    numbers = torch.tensor(order, dtype=torch.int32, device=scaled.device)
    return numbers.index_select(0, place)


def decode(
    parts: Mapping[str, torch.Tensor],
    shape: Shape,
    options: Options,
    levels: Sequence[float],
) -> torch.Tensor:
    """The weight [*lead, out, in] in float32."""
    codes, block, count = parts["codes"], int(options["block"]), prod(shape)
    table = torch.tensor(
        [(high, low) for high in levels for low in levels], device=codes.device
    )
    values = table.index_select(0, codes.int()).reshape(-1)[:count]
    absmax = _decode_again(parts) if options["double"] else parts["absmax"]
    full = count - count % block
    rows = values[:full].reshape(-1, block) * absmax[: full // block].unsqueeze(-1)
    if full == count:
        return rows.reshape(shape)
    rest = values[full:] * absmax[-1]
    return torch.cat([rows.reshape(-1), rest]).reshape(shape)


# --- the largest values, quantised themselves -----------------------------------------


def _encode_again(absmax: torch.Tensor) -> dict[str, torch.Tensor]:
    """Largest values as differences from their mean, in 8 bits."""
    mean = absmax.mean()
    levels = dynamic_levels()
    largest, scaled = _scaled(absmax - mean, SECOND)
    table = torch.tensor(levels, device=absmax.device)
    middles = (table[:-1] + table[1:]) / 2
    codes = torch.bucketize(scaled, middles, out_int32=True).to(torch.uint8)
    return {"absmax": codes, "absmax2": largest, "mean": mean}


def _decode_again(parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    codes, largest = parts["absmax"], parts["absmax2"]
    table = torch.tensor(dynamic_levels(), device=codes.device)
    values = table.index_select(0, codes.int())
    numbers = torch.arange(codes.numel(), device=codes.device) // SECOND
    return values * largest.index_select(0, numbers) + parts["mean"]


@lru_cache(maxsize=1)
def dynamic_levels() -> tuple[float, ...]:
    """The 256 levels of the signed dynamic type (Dettmers 2015, arXiv 1511.04561).

    Seven exponents, each with twice as many fractions as the one below, of both signs;
    and 0 and 1.  Every operation is rounded to float32, as tensors round it; there may
    be no tensors here, since a graph is captured without values.
    """
    found = [0.0, 1.0]
    for exponent in range(7):
        edges = _edges(2**exponent)
        scale = _single(10 ** (exponent - 6))
        for low, high in pairwise(edges):
            middle = _single(_single(low + high) / 2)
            found += [_single(scale * middle), _single(-scale * middle)]
    return tuple(sorted(found))


def _edges(count: int) -> list[float]:
    """The ends of `count` equal parts of 0.1 to 1; above the middle from 1 down."""
    first, last = _single(0.1), 1.0
    step = _single(_single(last - first) / count)
    low = [_single(first + step * i) for i in range((count + 1) // 2)]
    high = [_single(last - step * (count - i)) for i in range(len(low), count + 1)]
    return low + high


def _single(number: float) -> float:
    """A number rounded to float32."""
    rounded: float = struct.unpack("f", struct.pack("f", number))[0]
    return rounded
