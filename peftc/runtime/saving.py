"""`save_pretrained` of a compiled model.

In: a handle and a folder.  Out: the adapter file, and nothing of the base; or, with
`merge=True`, a plain model folder that knows nothing of peftc.

Transformers' Trainer saves by this method and resumes by reading `model.safetensors` or
an index of its parts.  A checkpoint of its making gets an index that names the adapter
file as the only part, so that Trainer's own loader resumes it.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peftc.diagnostics.core import fail
from peftc.diagnostics.runtime import NoPlaceForBias, WrongState
from peftc.files import write_atomically
from peftc.runtime.adapters import adapter_of, tensors
from peftc.runtime.fingerprint import base_state
from peftc.runtime.sharding import is_sharded, whole
from peftc.runtime.state import FILE, write_adapter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.runtime.handle import Handle

ABSENT = "peftc: the instance had no attribute of its own"
"""In `Handle.own`, of what the instance did not have."""
INDEX = "model.safetensors.index.json"
NOT_SAVED = "_keys_to_ignore_on_save"
"""Names of the state that a checkpoint leaves out; Trainer expects them missing."""


class SavePretrained:
    """Set on the instance of a compiled model as its `save_pretrained`."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle

    def __call__(
        self,
        save_directory: str | Path,
        *,
        merge: bool = False,
        is_main_process: bool = True,
        push_to_hub: bool = False,
        **options: Any,
    ) -> None:
        """Write the adapter to a folder; with `merge`, a plain model with it inside.

        `options` are Transformers'; those about the parts of a large model matter for
        a merged one only.  Trainer, which names `state_dict`, gets its index too.

        Raises:
            PeftcError: see `Handle.save` and `Handle.merge`.
        """
        if push_to_hub:
            what = "a compiled model is not pushed while it is saved"
            raise fail(WrongState(what=what, hint="call `model.push_to_hub(...)`"))
        if merge:
            options.pop("state_dict", None)
            save_merged(self.handle, Path(save_directory), is_main_process, options)
        else:
            self._save(Path(save_directory), is_main_process, options)

    def _save(
        self, folder: Path, is_main_process: bool, options: dict[str, Any]
    ) -> None:
        """Write the adapter.

        Of a sharded model, one process alone can if it is given the whole state, as
        Trainer gives it; else all of them are needed, and the first one writes.
        """
        by_trainer, state = "state_dict" in options, options.get("state_dict")
        if is_sharded(self.handle.model) and _is_whole(state, self.handle):
            if is_main_process:
                adapter = adapter_of(self.handle, folder, state)
                write_adapter(folder, adapter, record=by_trainer)
        elif is_main_process or is_sharded(self.handle.model):
            self.handle.save(folder, record=by_trainer)
        if by_trainer and is_main_process:
            write_index(self.handle, folder)


def _is_whole(state: Mapping[str, torch.Tensor] | None, handle: Handle) -> bool:
    """Whether a state has all tensors of the model, gathered."""
    names = handle.model.state_dict(keep_vars=True)
    given = state or {}
    return all(name in given and whole(given[name]) is given[name] for name in names)


def write_index(handle: Handle, folder: Path) -> None:
    """The index by which Trainer finds the adapter file."""
    parts = dict.fromkeys(tensors(handle.model, handle.plan), FILE)
    text = json.dumps({"metadata": {}, "weight_map": parts}, indent=2)
    write_atomically(folder / INDEX, text.encode())


def not_saved(handle: Handle) -> list[str]:
    """The names in the model's state that an adapter file does not hold."""
    saved = tensors(handle.model, handle.plan)
    return [name for name in handle.model.state_dict() if name not in saved]


def save_merged(
    handle: Handle, folder: Path, is_main_process: bool, options: dict[str, Any]
) -> None:
    """Write a plain model; one that is not merged is merged for the while of it."""
    if not handle.merged:
        handle.merge()
        try:
            save_merged(handle, folder, is_main_process, options)
        finally:
            handle.unmerge()
        return
    model: Any = handle.model
    _check_biases(model)
    with _saving_all(handle):
        type(model).save_pretrained(
            model,
            folder,
            is_main_process=is_main_process,
            state_dict=_plain_state(model),
            **options,
        )


def _plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in base_state(model)}


@contextmanager
def _saving_all(handle: Handle) -> Iterator[None]:
    """With the base's own list of what to leave out; ours would empty the folder."""
    own = handle.model.__dict__
    ours = own.pop(NOT_SAVED)
    if handle.own[NOT_SAVED] != ABSENT:
        own[NOT_SAVED] = handle.own[NOT_SAVED]
    try:
        yield
    finally:
        own[NOT_SAVED] = ours


def _check_biases(model: Any) -> None:
    """Refuse to write a bias that the model's class would not read back."""
    with torch.device("meta"):
        plain = type(model)(model.config).state_dict()
    for name, _ in base_state(model):
        if name not in plain:
            raise fail(NoPlaceForBias(bias=name, architecture=type(model).__name__))
