"""Folders of Hugging Face PEFT, on disk.

In: a folder, or settings and tensors.  Out: `Folder` with both, or the two files,
`adapter_config.json` and, written last, `adapter_model.safetensors`.

A folder comes from a stranger: two regular files are read and no other, sizes are
limited, a pickle is never opened, and a setting is used by its type or refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

from peftc.diagnostics.artefact import CannotWrite
from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.exchange import DamagedFolder, UnknownSetting
from peftc.files import write_atomically
from peftc.runtime.state import FILE, check_finite, regular_content

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
LARGEST_CONFIG = 2**20
LARGEST_NUMBER = 10**15

Value = TypeVar("Value", int, float, bool, str, list[Any], dict[str, Any])

KNOWN = frozenset(
    {
        *("peft_type", "task_type", "auto_mapping", "peft_version", "revision"),
        *("base_model_name_or_path", "inference_mode"),
    }
)
"""Settings that say nothing about what a model computes."""


@dataclass(frozen=True, eq=False)
class Folder:
    """What a folder of PEFT holds."""

    path: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]

    @property
    def type(self) -> str:
        """The type that PEFT gives it: LORA, IA3, ..."""
        return str(self.config.get("peft_type"))

    def setting(self, name: str, default: Value) -> Value:
        """A setting of the type of its default.

        Raises:
            PeftcError: PEFT733 if it is of another type.
        """
        value = self.config.get(name)
        if value is None:
            return default
        kind = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kind) or isinstance(value, bool) > isinstance(
            default, bool
        ):
            raise self.refused(name, f"it should be of type {type(default).__name__}")
        if isinstance(value, int | float):
            self.check_number(name, value)
        return value  # type: ignore[return-value]  # the type was just compared

    def check_number(self, name: str, value: float) -> None:
        """Refuse a number of a setting that no adapter has; NaN is one.

        Raises:
            PeftcError: PEFT733.
        """
        if not abs(value) < LARGEST_NUMBER:
            raise self.refused(name, "it is no number that an adapter could have")

    def reshaped(self, tensor: torch.Tensor, *shape: int) -> torch.Tensor:
        """A tensor with other axes.

        Raises:
            PeftcError: PEFT732 if it has another number of elements.
        """
        try:
            return tensor.reshape(shape)
        except RuntimeError:
            found, wanted = list(tensor.shape), list(shape)
            raise self.damaged(f"a tensor is {found}, and not {wanted}") from None

    def only(self, known: Iterable[str], idle: Iterable[str] = ()) -> None:
        """Refuse settings that are neither known, idle, nor switched off.

        `known` are read by who asks; `idle` have no effect on what is computed.

        Raises:
            PeftcError: PEFT733 for the first.
        """
        told = KNOWN | {*known, *idle}
        for name, value in self.config.items():
            if name not in told and value not in (None, False, 0, "", "none", [], {}):
                raise self.refused(name, "peftc does not know what it would change")

    def refused(self, name: str, reason: str) -> PeftcError:
        """The error that a setting cannot be imported."""
        value = json.dumps(self.config.get(name))[:80]
        where = str(self.path / CONFIG)
        return fail(
            UnknownSetting(path=where, setting=name, value=value, reason=reason)
        )

    def damaged(self, problem: str) -> PeftcError:
        """The error that the folder is not what it should be."""
        return fail(DamagedFolder(path=str(self.path), problem=problem))


def is_folder(path: Path) -> bool:
    """Whether a path is a folder of another tool, and not one of ours as well."""
    return (path / CONFIG).is_file() and not _is_ours(path)


def _is_ours(path: Path) -> bool:
    """AdapterHub's file of tensors is called as ours is."""
    return (path / FILE).exists() and "peft_type" in _config(path)


def is_peft(path: Path) -> bool:
    """Whether a folder of another tool is PEFT's."""
    return "peft_type" in _config(path)


def read_folder(path: Path, file: str = TENSORS, pickle: str = PICKLE) -> Folder:
    """Read a folder of another tool; `file` has its tensors, `pickle` is not read.

    Raises:
        PeftcError: PEFT620 if a file is no regular one, PEFT732 if it is damaged,
            PEFT624 if a tensor is not finite.
    """
    config = _config(path)
    if not (path / file).exists() and (path / pickle).exists():
        problem = f"`{pickle}` is a pickle, which may run code; it is not read"
        raise fail(DamagedFolder(path=str(path), problem=problem))
    try:
        tensors = load_tensors(regular_content(path / file))
    except (SafetensorError, KeyError, ValueError) as error:
        raise fail(DamagedFolder(path=str(path / file), problem=str(error))) from None
    check_finite(tensors)
    return Folder(path, config, tensors)


def _config(path: Path) -> Mapping[str, Any]:
    content, problem = regular_content(path / CONFIG), "it is no JSON object"
    try:
        read = json.loads(content) if len(content) <= LARGEST_CONFIG else None
    except (ValueError, RecursionError):
        read = None
    if not isinstance(read, dict):
        raise fail(DamagedFolder(path=str(path / CONFIG), problem=problem))
    return read


def write_folder(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Path:
    """Write a folder of PEFT; returns the path of its tensors.

    Raises:
        PeftcError: PEFT624 if a tensor is not finite, PEFT627 if the disk refuses.
    """
    check_finite(tensors)
    stored = {n: t.detach().to("cpu").contiguous().clone() for n, t in tensors.items()}
    text = json.dumps(dict(config), indent=2, sort_keys=True) + "\n"
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / CONFIG, text.encode())
        write_atomically(path / TENSORS, tensor_bytes(stored, {"format": "pt"}))
    except OSError as error:
        problem = error.strerror or str(error)
        raise fail(CannotWrite(path=str(path), problem=problem)) from error
    return path / TENSORS
