"""The tensors of a model's folder, one in memory at a time.

In: a folder that Transformers wrote, and the model without values.  Out: a
`Checkpoint`, which reads a tensor by the model's name of it; and files that are written
tensor by tensor, with values that are made when their turn comes.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from peftc.diagnostics.core import fail
from peftc.diagnostics.merging import OtherNames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

ONE = "model.safetensors"
INDEX = f"{ONE}.index.json"
TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types by the names that safetensors has for them."""
_NAMES = {dtype: name for name, dtype in TYPES.items()}
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf")


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: its name there and in the model, its type and shape."""

    name: str
    path: str
    kind: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What it takes in the file."""
        return math.prod(self.shape) * TYPES[self.kind].itemsize


class Checkpoint:
    """The weights in a folder."""

    def __init__(self, folder: Path, model: nn.Module) -> None:
        """List what there is; no values are read.

        Raises:
            PeftcError: PEFT741 if the folder has no safetensors, or they name tensors
                otherwise than the model does.
        """
        self.folder = folder
        index = folder / INDEX
        names = [ONE]
        if index.is_file():
            names = list(dict.fromkeys(_read_json(index)["weight_map"].values()))
        if not all((folder / name).is_file() for name in names):
            raise fail(OtherNames(problem=f"`{folder}` has no safetensors of its own"))
        naming = _Naming(model)
        self.files = {n: tuple(naming.entries(folder / n)) for n in names}
        self._at = {e.path: (n, e) for n, es in self.files.items() for e in es}

    def __contains__(self, path: str) -> bool:
        return path in self._at

    @property
    def paths(self) -> Iterable[str]:
        """The model's names of all tensors."""
        return self._at.keys()

    def read(self, path: str) -> torch.Tensor:
        """The tensor that the model has at a path, in the type that it has there."""
        file, entry = self._at[path]
        with safe_open(self.folder / file, framework="pt") as opened:
            tensor: torch.Tensor = opened.get_tensor(entry.name)
        return tensor.to(TYPES[entry.kind])

    def like(self, path: str, other: str) -> Entry:
        """An entry for a new tensor with the name, type and shape of another's file."""
        entry = self._at[other][1]
        return replace(entry, name=_name_like(path, entry), path=path)


def _name_like(path: str, other: Entry) -> str:
    """The name in a file for a path, with or without the start that another's has."""
    if other.path.endswith(other.name):
        return path.removeprefix(other.path.removesuffix(other.name))
    return f"{other.name.removesuffix(other.path)}{path}"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


class _Naming:
    """What a model calls the tensors of its files, and the types that it gives them."""

    def __init__(self, model: Any) -> None:
        self.prefix = getattr(model, "base_model_prefix", "")
        self.types = {name: t.dtype for name, t in model.state_dict().items()}
        self.decides = getattr(model.config, "dtype", None) is not None

    def entries(self, path: Path) -> Iterable[Entry]:
        """The tensors of a file, in the order in which they lie in it."""
        with safe_open(path, framework="pt") as opened:
            for name in opened.offset_keys():
                part, own = opened.get_slice(name), self._path(name)
                kind, shape = self._kind(own, part.get_dtype()), part.get_shape()
                yield Entry(name, own, kind, tuple(shape))

    def _path(self, name: str) -> str:
        """A head may have been put on, or taken off."""
        start = f"{self.prefix}."
        spellings = (name, f"{start}{name}", name.removeprefix(start))
        return next((one for one in spellings if one in self.types), name)

    def _kind(self, path: str, kind: str) -> str:
        """Transformers loads a model in the type that its configuration says."""
        wanted = self.types.get(path, TYPES[kind])
        both = wanted.is_floating_point and TYPES[kind].is_floating_point
        return _NAMES[wanted] if self.decides and both else kind


# --- writing --------------------------------------------------------------------------


def write_file(
    path: Path, entries: Sequence[Entry], value: Callable[[Entry], torch.Tensor]
) -> None:
    """Write a safetensors file, asking for each value when its turn comes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for entry in entries:
        start, end = end, end + entry.bytes
        about = {"dtype": entry.kind, "shape": entry.shape}
        header[entry.name] = {**about, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            file.write(_bytes(value(entry), entry))


def _bytes(tensor: torch.Tensor, entry: Entry) -> memoryview:
    assert tuple(tensor.shape) == entry.shape
    plain = tensor.to(TYPES[entry.kind]).contiguous().reshape(-1)
    array: Any = plain.view(torch.uint8).numpy()
    return memoryview(array)


def write_index(folder: Path, files: Mapping[str, Sequence[Entry]]) -> None:
    """The index of several files; one file needs none."""
    if [*files] == [ONE]:
        return
    size = sum(entry.bytes for entries in files.values() for entry in entries)
    where = {entry.name: name for name, es in files.items() for entry in es}
    said = {"metadata": {"total_size": size}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(said, indent=2, sort_keys=True) + "\n")


def copy_rest(source: Path, target: Path) -> None:
    """Copy what a model's folder has beside weights: configuration, tokenizer."""
    for path in source.iterdir():
        weights = path.name.endswith(_WEIGHTS) or path.name.endswith(".index.json")
        if path.is_file() and not weights:
            shutil.copyfile(path, target / path.name)
