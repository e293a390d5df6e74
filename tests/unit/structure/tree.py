"""The source tree as the structure tests read it: its modules, by dotted name."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
TOP = {"passes": ROOT / "passes", "grammar": ROOT / "grammar"}
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """A Python file: its dotted name (empty for one that is no part of the package)."""

    name: str
    path: Path
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.text)

    @property
    def place(self) -> str:
        return str(self.path.relative_to(ROOT))

    def functions(self) -> Iterator[FunctionNode]:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


@cache
def _parsed(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def package_modules() -> tuple[Module, ...]:
    """Every module of the package; files are read where they are, not through links."""
    found = _below(ROOT / "peftc", "peftc")
    for name, folder in TOP.items():
        found += _below(folder, f"peftc.{name}")
    return tuple(sorted(found, key=lambda module: module.name))


@cache
def other_modules() -> tuple[Module, ...]:
    """Tests, examples and benchmarks."""
    folders = (ROOT / name for name in ("tests", "examples", "benchmarks"))
    paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return tuple(Module("", path, path.read_text()) for path in paths)


def _below(folder: Path, package: str) -> list[Module]:
    modules = []
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if not parts[:-1] or not (folder / parts[0]).is_symlink():
            names = [package, *(part for part in parts if part != "__init__")]
            modules.append(Module(".".join(names), path, path.read_text()))
    return modules
