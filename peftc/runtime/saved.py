"""Initial values that other adapters hold.

In: a tensor whose `init` is `saved("folder")` or `saved("folder, folder")`.  Out: the
value of the tensor with its name in the adapter there; of several adapters their values
one above the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.runtime import NoSavedValue
from peftc.runtime.state import check_finite, read_adapter

if TYPE_CHECKING:
    from peftc.diagnostics.core import PeftcError
    from peftc.plan.types import AddedTensor


def saved(tensor: AddedTensor, path: str) -> torch.Tensor:
    """The value for a tensor that is at this path of the model.

    Raises:
        PeftcError: PEFT348 if an adapter has no such tensor, or one of another shape;
            PEFT620 to PEFT622 if a folder has no adapter that can be read.
    """
    text = tensor.init.removeprefix("saved(").removesuffix(")").strip('"')
    folders = [part.strip() for part in text.split(",")]
    if not all(folders):
        raise _unfit(tensor, text, "no folder is named")
    values = [_value(tensor, path, folder) for folder in folders]
    if any(value.shape != values[0].shape for value in values):
        raise _unfit(tensor, text, "the adapters have it in several shapes")
    alone = len(values) == 1 and values[0].shape == tensor.shape
    value = values[0] if alone else torch.stack(values)
    if value.shape != tensor.shape:
        problem = f"it is {list(value.shape)} there and {list(tensor.shape)} here"
        raise _unfit(tensor, text, problem)
    return value


def _value(tensor: AddedTensor, path: str, folder: str) -> torch.Tensor:
    """That of one adapter: at the same place if it has several of this name."""
    name = path.rpartition(".")[2]
    held = read_adapter(Path(folder)).tensors
    found = {p: v for p, v in held.items() if p.rpartition(".")[2] == name}
    owner = path.partition(".peftc.")[0]
    near = {p: v for p, v in found.items() if p.startswith(f"{owner}.peftc.")}
    one = found if len(found) == 1 else near
    if len(one) != 1:
        problem = f"it has {len(one) or 'none'} of the name `{name}` for this place"
        raise _unfit(tensor, folder, problem)
    check_finite(one)
    (value,) = one.values()
    return value


def _unfit(tensor: AddedTensor, folder: str, problem: str) -> PeftcError:
    return fail(NoSavedValue(tensor=tensor.name, folder=folder, problem=problem))
