"""A training checkpoint is checked before it is loaded.

Transformers' Trainer resumes by `load_state_dict`, which is given tensors and nothing
else.  Its checkpoints have one tensor more, RECORD, that holds what an adapter file
says in its metadata.  In: a handle.  Out: a hook on its model that takes RECORD out of
what is loaded and makes the checks of `Handle.load`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftc.runtime.state import RECORD, from_metadata
from peftc.runtime.storing import check_adapter

if TYPE_CHECKING:
    import torch
    from torch import nn

    from peftc.runtime.handle import Handle


class CheckResumed:
    """A hook that runs before a model loads a state; a class, so that it can be pickled
    and a copied model checks for itself."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def __call__(
        self, module: nn.Module, state: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Refuse a checkpoint of another plan or base.

        Raises:
            PeftcError: as `Handle.load`; nothing is loaded then.
        """
        record = state.pop(prefix + RECORD, None)
        if record is not None:
            own = {n.removeprefix(prefix): t for n, t in state.items()}
            adapter = from_metadata(Path(RECORD), _read(record), own)
            handle, any_base = self.handle, self.handle.any_base
            check_adapter(handle, adapter, any_base=any_base)
            handle.any_base = any_base or adapter.any_base


def _read(record: torch.Tensor) -> dict[str, str]:
    read: dict[str, str] = json.loads(bytes(record.tolist()))
    return read


def add_check(handle: Handle) -> None:
    """Hook the handle's model."""
    handle.model.register_load_state_dict_pre_hook(CheckResumed(handle))


def remove_check(model: nn.Module) -> None:
    """Take the hook back."""
    hooks = model._load_state_dict_pre_hooks
    for key, wrapped in list(hooks.items()):
        if isinstance(getattr(wrapped, "hook", None), CheckResumed):
            del hooks[key]
