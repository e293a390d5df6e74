"""A compiled model's base as a model of its own, without its weights in memory twice.

In: a compiled model.  Out: a copy of its modules, whose parameters and buffers are the
same tensors, and which runs the base whatever the model does.
"""

from __future__ import annotations

import copy
from itertools import chain
from typing import TYPE_CHECKING, Any

from peftc.runtime.names import CHILD

if TYPE_CHECKING:
    from torch import nn


def base_of_its_own(model: nn.Module) -> nn.Module:
    """The base in modules of its own, in evaluation mode, with the model's tensors.

    Weights that are kept in codes are those that they decode to, as in `disabled()`.
    """
    twin: Any = shared_copy(model)
    handle = twin.__dict__[CHILD]
    stored = bool(handle.plan.stores)
    handle.switch.off, handle.switch.coded = not stored, stored
    base: nn.Module = twin.eval()
    return base


def shared_copy(model: nn.Module) -> nn.Module:
    """A deep copy of everything but the tensors."""
    shelved = model.__dict__[CHILD].slots.shelved()
    tensors = chain(model.parameters(), model.buffers(), shelved)
    known: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
    return copy.deepcopy(model, known)
