"""What a generated kernel takes of a GPU, read off its machine code: no GPU is needed.

In: a kernel of a `KernelSource`, a schedule and an architecture.  Out: a `Usage`.

Spills do not show before the machine code is made, so that it is disassembled, with the
tools that come with Triton.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from peftc.codegen.kernels.tiles import LEAST
from peftc.rewrite.module_cache import stored

if TYPE_CHECKING:
    from types import ModuleType

    from peftc.codegen.kernels.launches import Launch
    from peftc.codegen.kernels.schedules import Schedule
    from peftc.codegen.kernels.source import KernelSource

ARCHITECTURES = (80, 89, 90, 100)
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024}
"""Bytes of shared memory that a program can have."""
MATRIX = {80: r"\bHMMA", 89: r"\bHMMA", 90: r"\bHGMMA", 100: r"\bUTC\w*MMA"}
"""The instructions that multiply matrices.  An architecture also has the older ones,
and has none but those for blocks of the fewest rows."""
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
TYPES = {
    **{"value": "*bf16", "float32": "*fp32", "seed": "*i64"},
    **{"step": "i32", "count": "i32"},
}


@dataclass(frozen=True)
class Usage:
    """Of each thread registers and bytes of stack; bytes of shared memory of each
    program; how many instructions spill, and multiply matrices."""

    registers: int
    stack: int
    shared: int
    spills: int
    matrix: int

    def __str__(self) -> str:
        return ", ".join(f"{count} {what}" for what, count in vars(self).items())


def modules(source: KernelSource, folder: Path) -> dict[str, Any]:
    """The kernels of a source by name, not compiled yet."""
    both = (_module(text, folder) for text in (source.forward, source.backward))
    names = [vars(module) for module in both]
    return {name: next(n[name] for n in names if name in n) for name in source.launches}


def _module(text: str, folder: Path) -> ModuleType:
    path = stored(text, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def usage(kernel: Any, launch: Launch, schedule: Schedule, arch: int) -> Usage:
    """What a kernel takes in bfloat16, if all addresses are multiples of 16 bytes."""
    made = _compiled(kernel, launch, schedule, arch)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        facts = _run("cuobjdump", "-res-usage", file.name)
        code = _run("nvdisasm", file.name)
    registers, stack = re.findall(r"\b(?:REG|STACK):(\d+)", facts)[:2]
    spills = re.findall(r"\b(?:STL|LDL)\b", code)
    matrix = re.findall(MATRIX[80 if schedule.bm == LEAST else arch], code)
    shared = made.metadata.shared
    return Usage(int(registers), int(stack), shared, len(spills), len(matrix))


def _run(tool: str, *args: str) -> str:
    made = subprocess.run([TOOLS / tool, *args], capture_output=True, check=True)
    return made.stdout.decode()


def _compiled(kernel: Any, launch: Launch, schedule: Schedule, arch: int) -> Any:
    types = [*(TYPES[one] for one in launch.arguments), "i32"]
    dtype = triton.language.bfloat16
    fixed = {"BM": schedule.bm, "BF": schedule.bf, "DT": dtype, "DD": dtype}
    names = kernel.arg_names
    signature = dict(zip(names, types, strict=False))
    signature |= dict.fromkeys(fixed, "constexpr")
    whole = {(i,): [["tt.divisibility", 16]] for i in range(len(types))}
    options = {
        "num_warps": schedule.warps,
        "num_stages": schedule.stages,
        "enable_fp_fusion": True,
    }
    source = ASTSource(kernel, signature, fixed, whole)
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
