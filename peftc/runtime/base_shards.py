"""A frozen base of which each process keeps a part.

In: a model that every process has whole, and a plan.  Out: the plan in which the
weights of all linears are stored as parts, one in each process, beside what it stores
itself.  A product gathers its weight, and gathers it once more in the backward if a
gradient has to pass: a frozen weight has no gradients that would have to be added up.
What is trained stays whole in every process, and is for DistributedDataParallel.

How many processes there are says nothing of an adapter: files have plans without it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import distributed as dist
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftc.diagnostics.core import fail
from peftc.diagnostics.scale import NoProcesses
from peftc.plan.types import StoredWeight
from peftc.sites.capture import ties
from peftc.storage.table import FLOATING, form_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.plan.types import Plan


def with_shards(plan: Plan, model: nn.Module) -> Plan:
    """The plan that keeps a part of the base in each process.

    Raises:
        PeftcError: PEFT644 unless several processes are in a group.
    """
    count = dist.get_world_size() if dist.is_initialized() else 0
    if count < 2:
        raise fail(NoProcesses(count=count))
    known = {stored.weight for stored in plan.stores}
    found = (one for one in _linears(model, count) if one.weight not in known)
    return replace(plan, stores=(*plan.stores, *found))


def without_shards(plan: Plan) -> Plan:
    """The plan as it is in files: what is stored exactly is stored as it was."""
    kept = tuple(stored for stored in plan.stores if form_of(stored.form).error)
    return replace(plan, stores=kept)


def _linears(model: nn.Module, count: int) -> Iterator[StoredWeight]:
    """The weights of linears; those that are tied are read elsewhere too."""
    tied = ties(model)
    for path, module in model.named_modules():
        name = f"{path}.weight"
        if isinstance(module, nn.Linear | Conv1D) and name not in tied:
            weight = model.get_parameter(name)
            dtype = str(weight.dtype).removeprefix("torch.")
            form = f"shards(n={count}, type={dtype}, compute=base)"
            turned, shape = isinstance(module, Conv1D), tuple(weight.shape)
            if dtype in FLOATING:
                yield StoredWeight(name, form, shape, dtype, turned)
