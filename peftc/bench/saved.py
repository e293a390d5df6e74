"""Bytes that autograd keeps from the forward for the backward.

In: a model and a batch.  Out: the bytes of distinct storages; parameters do not count,
nor do views of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import torch

from peftc.bench.tasks import loss

if TYPE_CHECKING:
    from torch import Tensor

    from peftc.bench.tasks import Batch


class _Kept:
    """A tensor that autograd keeps; gone when the part of the graph is that needs it.

    A forward may build a graph and drop it; its memory is used again, so addresses
    that were noted along the way would count it twice or hide others.
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach()  # a result would hold the node that keeps it


def saved_bytes(model: Any, batch: Batch) -> int:
    """What is alive between forward and backward, and was not there before."""
    base = {t.untyped_storage().data_ptr() for t in model.parameters()}
    alive: WeakSet[_Kept] = WeakSet()

    def pack(value: Tensor) -> _Kept:
        kept = _Kept(value)
        alive.add(kept)
        return kept

    model.zero_grad(set_to_none=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.value):
        value = loss(model, batch)
    storages = [kept.value.untyped_storage() for kept in alive]
    del value
    sizes = {storage.data_ptr(): storage.nbytes() for storage in storages}
    return sum(size for place, size in sizes.items() if place not in base)
