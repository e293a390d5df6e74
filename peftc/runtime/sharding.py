"""Models whose parameters several processes share.

In: a compiled model, as FSDP2 shards it (each parameter is a DTensor) or not.  Out:
whole tensors of sharded ones and back, and which process writes files.

Gathering is a collective: where a model is sharded, every process has to ask for the
same tensors in the same order.  Where it is not, nobody waits for anybody.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn


def is_sharded(model: nn.Module) -> bool:
    """Whether other processes hold a part of the model's parameters."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def settle(model: nn.Module) -> None:
    """Put away what FSDP2 has gathered and keeps until the backward: what is written
    there is lost."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all of its elements."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def put(tensor: torch.Tensor, value: torch.Tensor) -> None:
    """Copy the value into a tensor, of a sharded one the part that is here.

    Every process has the whole value.
    """
    if isinstance(tensor, DTensor):
        mesh, placements = tensor.device_mesh, tensor.placements
        value = value.to(tensor.device, tensor.dtype)
        value = distribute_tensor(value, mesh, placements, src_data_rank=None)
    tensor.copy_(value)


@contextmanager
def writing(model: nn.Module) -> Iterator[bool]:
    """Whether this process writes the model's file in a `with` block.

    Of a sharded model the first does, and the others leave the block when the file is
    there or its writer has failed.
    """
    if not is_sharded(model):
        yield True
        return
    try:
        yield dist.get_rank() == 0
    finally:
        dist.barrier()
