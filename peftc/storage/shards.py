"""A part of a weight's bytes in each of n processes; nothing is lost.

The processes are those of the default group of torch.distributed.  To encode is to keep
one's own part, to decode is to gather all of them: every process has to, at the same
time.  The gathering is an operator that compilers know.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.storage.table import Options, Shape


def encode(weight: torch.Tensor, options: Options) -> dict[str, torch.Tensor]:
    """This process's part of the bytes, the last part filled up with zeros."""
    flat = weight.contiguous().reshape(-1).view(torch.uint8)
    count = int(options["n"])
    size = -(-len(flat) // count)
    start = dist.get_rank() * size
    part = flat.new_zeros(size)
    own = flat[start : start + size]
    part[: len(own)] = own
    return {"part": part}


def decode(
    parts: Mapping[str, torch.Tensor], shape: Shape, options: Options
) -> torch.Tensor:
    """The weight [*lead, out, in] in its own type."""
    dtype = getattr(torch, str(options["type"]))
    group = dist.group.WORLD
    assert group is not None, "the processes of a group compiled the model"
    gather = torch.ops._c10d_functional.all_gather_into_tensor
    found = gather(parts["part"], int(options["n"]), group.group_name)
    flat: torch.Tensor = torch.ops._c10d_functional.wait_tensor(found)
    return flat[: prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
