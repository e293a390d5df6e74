"""Bytes that autograd keeps from the forward for the backward.

In: a model and a batch.  Out: the bytes of distinct storages; parameters do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftc.bench.tasks import loss

if TYPE_CHECKING:
    from torch import Tensor

    from peftc.bench.tasks import Batch


def saved_bytes(model: Any, batch: Batch) -> int:
    """What is alive between forward and backward, and was not there before."""
    base = {t.untyped_storage().data_ptr() for t in model.parameters()}
    sizes: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in base:
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    model.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        alive = loss(model, batch)
    del alive
    return sum(sizes.values())
