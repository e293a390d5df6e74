"""What shows again that a generated kernel and torch disagree.

In: a generated function, what it was called with, and what was wrong.  Out: a folder
`peftc-reproducer-<hash>/` with its plan, the module, the tensors and versions; and of
such a folder the function and the tensors as they lay in memory.  A folder may come
from a stranger: the kernel is generated anew from its plan, and nothing in it is run.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import save_file

from peftc.codegen.joint_text import joint_text, parse_joint
from peftc.rewrite.generated import Generated, generated
from peftc.versions import versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

PACKAGES = ("peftc", "torch", "triton")
FACTS, PLAN, TENSORS = "facts.json", "plan.txt", "tensors.safetensors"


def write(function: Generated, given: Sequence[Tensor], problem: str) -> Path:
    """The folder, in the working directory; one that is there already stays.

    Raises:
        OSError: if it cannot be written; nothing is left of it then.
    """
    digest = hashlib.sha256((function.text + problem).encode()).hexdigest()[:10]
    folder = Path.cwd() / f"peftc-reproducer-{digest}"
    if folder.exists():
        return folder
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _fill(fresh, function, given, problem)
        os.rename(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _fill(
    folder: Path, function: Generated, given: Sequence[Tensor], problem: str
) -> None:
    texts = {
        FACTS: json.dumps(_facts(function, given, problem), indent=2) + "\n",
        PLAN: joint_text(function.program),
        "kernel.py": function.text,
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    named = dict(zip(function.takes, given, strict=True))
    layout = json.dumps({name: t.stride() for name, t in named.items()})
    whole = {name: t.detach().contiguous().clone() for name, t in named.items()}
    save_file(whole, folder / TENSORS, metadata={"strides": layout})


def _facts(
    function: Generated, given: Sequence[Tensor], problem: str
) -> Mapping[str, Any]:
    return {
        "stage": "kernel",
        "error": problem,
        "biases": sorted(function.biases),
        "wide": function.wide,
        "direction": function.direction,
        "wanted": function.wanted,
        "device": str(given[0].device),
        "versions": versions(PACKAGES),
        "python": platform.python_version(),
    }


def read(folder: Path) -> tuple[Generated, Sequence[Tensor]]:
    """The function, made anew, and what it was called with.

    Raises:
        OSError, ValueError, LookupError: if the folder has not what it should have.
    """
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    program = parse_joint((folder / PLAN).read_text(encoding="utf-8"))
    way, wanted = facts["direction"], tuple(facts["wanted"])
    function = generated(
        program, frozenset(facts["biases"]), facts["wide"], way, wanted
    )
    with safe_open(folder / TENSORS, "pt", device=facts["device"]) as file:
        layout: Mapping[str, list[int]] = json.loads(file.metadata()["strides"])
        values = {n: _laid(file.get_tensor(n), steps) for n, steps in layout.items()}
    return function, [values[name] for name in function.takes]


def _laid(value: Tensor, strides: Sequence[int]) -> Tensor:
    """A tensor with these strides, unless elements lie on others."""
    if list(value.stride()) == list(strides) or 0 in strides:
        return value
    last = sum((n - 1) * step for n, step in zip(value.shape, strides, strict=True))
    room = value.new_zeros(last + 1)
    return room.as_strided(value.shape, strides).copy_(value)
