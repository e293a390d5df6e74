"""A model in memory and adapters, to the same model with the adapters in its weights.

For bases whose files name tensors otherwise than the model does.  In: a plain model and
adapters.  Out: its parameters changed, as `merge_folder` writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftc.merging.change import Choices, Merging, Part, Told
from peftc.runtime.adapters import tensor_at
from peftc.runtime.fingerprint import base_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import nn

    from peftc.merging.combine import Sum
    from peftc.runtime.state import Adapter


class InMemory:
    """The tensors of a model as they are."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = dict(base_state(model))

    @property
    def paths(self) -> Iterable[str]:
        """The names of all."""
        return self.tensors.keys()

    def __contains__(self, path: str) -> bool:
        return path in self.tensors

    def read(self, path: str) -> torch.Tensor:
        """One tensor."""
        return self.tensors[path].detach()


def merge_loaded(
    adapters: Sequence[Adapter],
    model: Any,
    how: Sum,
    choices: Choices | None = None,
) -> Told:
    """Change a model's weights.

    Raises:
        PeftcError: as `merge_folder`; the model is of no use then.
    """
    parts = [Part(adapter, model) for adapter in adapters]
    source = InMemory(model)
    merging = Merging(model, source, parts, how, choices or Choices())
    merging.check()
    with torch.no_grad():
        for path in source.paths:
            value = merging.value(path)
            if path in merging.groups:
                tensor_at(model, path).copy_(value)
    for path in merging.groups:
        if path not in source:
            owner, _, name = path.rpartition(".")
            bias = torch.nn.Parameter(merging.value(path), requires_grad=False)
            model.get_submodule(owner).register_parameter(name, bias)
    return merging.told
