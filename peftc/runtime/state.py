"""Adapters on disk: one safetensors file, written whole or not at all.

In: a model with its methods, or a folder.  Out: `adapter.safetensors` with the added
tensors, and in its metadata the spec, the plan, the seed and the fingerprint of the
base; or an `Adapter` read from one.

A file comes from a stranger: it is opened only if it is a regular file, no pickle is
ever read, names in it are compared with those of the plan and used for nothing else,
and everything is checked before a model is touched.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as tensor_bytes

from peftc.diagnostics.artefact import (
    CannotWrite,
    DamagedAdapter,
    NoAdapter,
    NotFinite,
    TensorsDiffer,
    UnknownFormat,
)
from peftc.diagnostics.core import Diagnostic, Diagnostics, fail
from peftc.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

FILE = "adapter.safetensors"
FOREIGN = "adapter_config.json"
"""What other tools' folders hold."""
LARGEST_FILE = 16 * 2**30
"""Bytes that are read into memory at most, before anything in a file is known."""
RECORD = "peftc.record"
"""The name of a tensor that repeats the metadata, for readers that get tensors only."""
FORMAT = "peftc-adapter"
FORMAT_VERSION = "1"

_FIELDS = ("spec", "plan", "plan_hash", "base", "seed", "peftc_version")


@dataclass(frozen=True)
class Adapter:
    """What an adapter file holds; `spec`, `plan` and `base` are texts."""

    path: Path
    spec: str
    plan: str
    plan_hash: str
    base: str
    seed: int
    version: str
    any_base: bool
    """It was once loaded onto another base than it was made on, on request."""
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Expected:
    """A tensor that a plan adds, as it must be in the file."""

    shape: tuple[int, ...]
    dtype: torch.dtype


# --- writing ----------------------------------------------------------------------


def write_adapter(folder: Path, adapter: Adapter, *, record: bool = False) -> Path:
    """Write `folder/adapter.safetensors`; `adapter.path` takes no part.

    With `record`, RECORD is written as well.

    Raises:
        PeftcError: if a tensor is not finite or the disk refuses; an older file is
            then untouched.
    """
    check_finite(adapter.tensors)
    metadata = _metadata(adapter)
    stored = _storable(adapter.tensors) | (_record(metadata) if record else {})
    content = _ordered(tensor_bytes(stored, metadata))
    target = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
    except OSError as error:
        problem = error.strerror or str(error)
        raise fail(CannotWrite(path=str(target), problem=problem)) from error
    return target


def _ordered(content: bytes) -> bytes:
    """The same file with its header in order: safetensors writes metadata in any, and
    equal adapters are to be equal files."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse NaN and infinity, naming every tensor that has any."""
    errors = Diagnostics()
    for name, tensor in tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            count = int((~torch.isfinite(tensor)).sum())
            if count:
                errors.add(NotFinite(tensor=name, count=count))
    errors.check()


def _storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {n: t.detach().to("cpu").contiguous() for n, t in tensors.items()}


def _record(metadata: Mapping[str, str]) -> dict[str, torch.Tensor]:
    text = json.dumps(metadata).encode()
    return {RECORD: torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def _metadata(adapter: Adapter) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "peftc_version": adapter.version,
        "spec": adapter.spec,
        "plan": adapter.plan,
        "plan_hash": adapter.plan_hash,
        "base": adapter.base,
        "seed": str(adapter.seed),
        "any_base": "true" if adapter.any_base else "false",
    }


# --- reading ----------------------------------------------------------------------


def read_adapter(place: Path) -> Adapter:
    """Read the adapter in a folder, or the file itself.

    Raises:
        PeftcError: PEFT620 to PEFT622; the tensors are not checked against a plan yet.
    """
    path = place / FILE if place.is_dir() else place
    if (place / FOREIGN).is_file() and not path.exists():
        hint = "`peftc import FOLDER MODEL -o DIR` makes an adapter of it"
        problem = "is a folder of another tool"
        raise fail(NoAdapter(path=str(place), problem=problem, hint=hint))
    content = regular_content(path)
    try:
        tensors = load_tensors(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise fail(DamagedAdapter(path=str(path), problem=str(error))) from None
    return from_metadata(path, _header(content), tensors)


def regular_content(path: Path) -> bytes:
    """The bytes of a regular file; never waits for a pipe, never follows a link."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        problem = error.strerror or "cannot be opened"
        raise fail(NoAdapter(path=str(path), problem=problem)) from None
    try:
        facts = os.fstat(handle)
        if not stat.S_ISREG(facts.st_mode):
            raise fail(NoAdapter(path=str(path), problem="is not a regular file"))
        if facts.st_size > LARGEST_FILE:
            problem = f"{facts.st_size:,} bytes are too many for an adapter"
            raise fail(NoAdapter(path=str(path), problem=problem))
        with open(handle, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(handle)


def _header(content: bytes) -> Mapping[str, str]:
    """The metadata; safetensors has checked the header by now."""
    size = int.from_bytes(content[:8], "little")
    metadata: Mapping[str, str] = json.loads(content[8 : 8 + size]).get(
        "__metadata__", {}
    )
    return metadata


def from_metadata(
    path: Path, metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor]
) -> Adapter:
    """The adapter that these tensors and this metadata are.

    Raises:
        PeftcError: PEFT622 if the metadata is not that of an adapter.
    """
    if problem := _unknown(metadata):
        raise fail(UnknownFormat(path=str(path), problem=problem))
    return Adapter(
        path,
        spec=metadata["spec"],
        plan=metadata["plan"],
        plan_hash=metadata["plan_hash"],
        base=metadata["base"],
        seed=int(metadata["seed"]),
        version=metadata["peftc_version"],
        any_base=metadata.get("any_base") == "true",
        tensors={n: t for n, t in tensors.items() if n != RECORD},
    )


def _unknown(metadata: Mapping[str, str]) -> str:
    if metadata.get("format") != FORMAT:
        return "it is a safetensors file, but not an adapter of peftc"
    version = metadata.get("format_version", "")
    if version != FORMAT_VERSION:
        newer = version.isdecimal() and int(version) > int(FORMAT_VERSION)
        way = "; a newer peftc wrote it and can read it" if newer else ""
        known = f"known is {FORMAT_VERSION}"
        return f"its format is version {version or '?'}, {known}{way}"
    missing = [name for name in _FIELDS if name not in metadata]
    if missing:
        return f"its metadata lacks {', '.join(missing)}"
    return "" if metadata["seed"].isdecimal() else "its seed is not a number"


# --- checking against a plan ------------------------------------------------------


def check_tensors(adapter: Adapter, expected: Mapping[str, Expected]) -> None:
    """Refuse an adapter whose tensors are not exactly the expected ones, and finite."""
    errors = Diagnostics()
    for diagnostic in _differences(adapter.tensors, expected):
        errors.add(diagnostic)
    errors.check()
    check_finite(adapter.tensors)


def _differences(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, Expected]
) -> Iterator[Diagnostic]:
    for name in sorted(tensors.keys() | expected.keys()):
        if problem := _problem(tensors.get(name), expected.get(name)):
            yield TensorsDiffer(tensor=name, problem=problem)


def _problem(tensor: torch.Tensor | None, expected: Expected | None) -> str:
    if expected is None:
        return "is not in the plan"
    if tensor is None:
        return "is missing"
    if tuple(tensor.shape) != expected.shape:
        return f"has shape {list(tensor.shape)}, not {list(expected.shape)}"
    if tensor.dtype != expected.dtype:
        return f"is {tensor.dtype}, not {expected.dtype}".replace("torch.", "")
    return ""
