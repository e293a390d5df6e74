"""What a folder of AdapterHub is made of.

In: a folder.  Out: `Part` for each method in it (a union has several): its settings and
tensors, these by the path of the module they belong to and their name in it.  A tensor
is called `MODULE.KIND.ADAPTER.NAME`: `layer.0.output.adapters.ad.adapter_up.bias`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from peftc.exchange.folder import Folder, read_folder
from peftc.exchange.tuner import checked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from peftc.diagnostics.core import PeftcError

    Tensors: TypeAlias = Mapping[str, torch.Tensor]

TENSORS, PICKLE = "adapter.safetensors", "pytorch_adapter.bin"


@dataclass(frozen=True, eq=False)
class Part:
    """One method of a folder."""

    folder: Folder
    """With the settings of this method alone."""
    name: str
    """What the adapter is called, which stands in the names of its tensors."""

    @property
    def kind(self) -> str:
        """Its architecture as AdapterHub calls it."""
        return str(self.folder.config.get("architecture") or "bottleneck")

    def found(self, kind: str) -> Mapping[str, Tensors]:
        """The tensors of one kind by module and name."""
        mark, made = f".{kind}.{self.name}.", dict[str, dict[str, Any]]()
        for key, tensor in self.folder.tensors.items():
            module, here, name = key.partition(mark)
            if here:
                made.setdefault(checked(self.folder, module), {})[name] = tensor
        return made

    def named(
        self, module: str, tensors: Tensors, names: Mapping[str, str]
    ) -> dict[str, torch.Tensor]:
        """The tensors of a module under our names; `names` gives ours of theirs.

        Raises:
            PeftcError: PEFT732 if they are not exactly these.
        """
        if odd := min(tensors.keys() ^ names.keys(), default=""):
            raise self.folder.damaged(f"`{module}` lacks `{odd}`, or has it too much")
        if any(tensor.ndim == 0 for tensor in tensors.values()):
            raise self.folder.damaged(f"a tensor of `{module}` has no axis")
        return {ours: tensors[theirs] for theirs, ours in names.items()}

    def must(self, settings: Mapping[str, Any]) -> None:
        """Refuse other values of settings than these, which are also the defaults.

        Raises:
            PeftcError: PEFT733 for the first.
        """
        for name, value in settings.items():
            if self.folder.config.get(name, value) != value:
                raise self.refused(name)

    def refused(self, name: str) -> PeftcError:
        """The error that a setting has a value that cannot be imported."""
        return self.folder.refused(name, "no method here does that")


def parts_of(path: Path) -> list[Part]:
    """The methods of a folder.

    Raises:
        PeftcError: PEFT732 if the folder is damaged.
    """
    folder = read_folder(path, TENSORS, PICKLE)
    name, said = folder.config.get("name"), folder.config.get("config")
    if not isinstance(name, str) or not isinstance(said, dict):
        raise folder.damaged("its settings are those of no adapter")
    checked(folder, name)
    each = said.get("configs") if said.get("architecture") == "union" else [said]
    if not isinstance(each, list) or not all(isinstance(one, dict) for one in each):
        raise folder.damaged("its settings are those of no adapter")
    version = str(folder.config.get("version", ""))
    return [
        Part(replace(folder, config={**one, "version": version}), name) for one in each
    ]
