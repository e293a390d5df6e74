"""Weights of the base that are kept in codes, in the model.

In: a model and the stored weights of a plan.  Out: their codes, as buffers below the
weights' owners; and parameters of the same shape and type that hold one number, which
is not a number: whoever reads such a weight as it is gets NaN, not a wrong result.  The
parameter stays the same object, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from peftc.runtime.names import code_path
from peftc.storage.reading import decoded, encoded

if TYPE_CHECKING:
    from peftc.plan.types import StoredWeight

Codes: TypeAlias = Mapping[str, Mapping[str, torch.Tensor]]
"""By the path of a weight: what is kept of it, by name."""

Stores: TypeAlias = "Sequence[StoredWeight]"


class Holder(nn.Module):
    """What is kept of one weight.  `model.half()` and the like leave its types."""

    def __init__(self, parts: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        for name, value in parts.items():
            self.register_buffer(name, value)

    def _apply(
        self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True
    ) -> Holder:
        """Let the buffers move, and keep their values."""
        for name, value in self._buffers.items():
            if value is not None:
                moved = fn(value)
                kept = moved.dtype == value.dtype
                self._buffers[name] = moved if kept else value.to(moved.device)
        return self


def encode(model: nn.Module, stores: Stores) -> Codes:
    """Encode weights; the model is only read."""
    return {s.weight: _encode(model.get_parameter(s.weight), s) for s in stores}


def _encode(
    parameter: nn.Parameter, stored: StoredWeight
) -> Mapping[str, torch.Tensor]:
    if has_no_values(parameter):
        return {
            part.name: parameter.new_empty(part.shape, dtype=getattr(torch, part.dtype))
            for part in stored.parts
        }
    return encode_one(parameter.detach(), stored)


def encode_one(
    weight: torch.Tensor, stored: StoredWeight
) -> Mapping[str, torch.Tensor]:
    """What is kept of a weight, by name."""
    return encoded(stored.form, weight.mT if stored.transposed else weight)


def has_no_values(parameter: torch.Tensor) -> bool:
    """Whether a tensor is a shape only."""
    return parameter.is_meta or isinstance(parameter, FakeTensor)


def codes_in(model: nn.Module, stores: Stores) -> Codes:
    """The codes that a compiled model holds."""
    return {
        s.weight: {p.name: model.get_buffer(code_path(s, p.name)) for p in s.parts}
        for s in stores
    }


def decode(stored: StoredWeight, parts: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The weight as its parameter has it, in its type and layout."""
    dtype = getattr(torch, stored.dtype)
    named = (parts[part.name] for part in stored.parts)
    weight = decoded(stored.form, stored.coded, dtype, *named)
    return weight.mT.contiguous() if stored.transposed else weight


def is_free(parameter: torch.Tensor) -> bool:
    """Whether a parameter holds one number only."""
    return parameter.untyped_storage().nbytes() <= parameter.element_size()


def free(model: nn.Module, stores: Stores) -> None:
    """Take the values of stored weights out of their parameters."""
    for stored in stores:
        free_one(model.get_parameter(stored.weight))


def free_one(parameter: nn.Parameter) -> None:
    """Let a parameter hold one number for all."""
    if not (has_no_values(parameter) or is_free(parameter)):
        nothing = torch.full((), torch.nan, dtype=parameter.dtype)
        parameter.data = nothing.to(parameter.device).expand(parameter.shape)


def fill(model: nn.Module, stores: Stores, values: Mapping[str, torch.Tensor]) -> None:
    """Give stored weights values of their own, those of `values` or decoded ones."""
    codes = codes_in(model, stores)
    for stored in stores:
        parameter = model.get_parameter(stored.weight)
        if has_no_values(parameter):
            continue
        value = values.get(stored.weight)
        value = decode(stored, codes[stored.weight]) if value is None else value
        parameter.data = value.to(parameter.device, parameter.dtype)
