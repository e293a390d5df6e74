"""Imports point one way, and the front end runs without torch.

The order is that of ARCHITECTURE.md.  An import under `if TYPE_CHECKING:` is no import;
one inside a function is.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from peftc.passes import GRAPH_PIPELINE, PLAN_PIPELINE
from tests.unit.structure.tree import ROOT, Module, package_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYERS = (
    (
        "diagnostics.core",
        "diagnostics.render",
        "syntax.source",
        "files",
        "versions",
        "markdown",
    ),
    ("methods", "grammar", "storage.table"),
    ("diagnostics", "syntax"),
    ("view",),
    ("expr",),
    ("resolve",),
    ("codegen.text",),
    ("plan",),
    ("pipeline", "passes"),
    ("plan-pass", "codegen"),
    ("networks",),
    ("sites", "rewrite", "storage"),
    ("graph-pass",),
    ("runtime",),
    ("exchange",),
    ("runtime.handle", "runtime.install", "runtime.replan", "runtime.memory"),
    ("merging",),
    ("training",),
    ("reproducer",),
    ("driver",),
    ("replay",),
    ("api", ""),
    ("tuning",),
    ("bench",),
    ("cli",),
)
"""Packages of one row may import each other and all rows above; "" is peftc itself.
The text form of a program is below the plan, whose text contains it."""

ERRORS = {
    "syntax": "syntax",
    "equations": "expr",
    "resolve": "resolve",
    "plan": "plan",
    "capture": "sites",
    "runtime": "runtime",
    "training": "expr",
    "stores": "expr",
    "stored": "sites",
}
"""The stage that each file of error classes belongs to, and may import from."""

HEAVY = {"torch", "transformers", "numpy", "triton", "safetensors", "accelerate"}
TORCH_IN_FRONT = {"peftc.expr.evaluate"}
FRONT_END = "plan-pass"

MODULES = package_modules()
NAMES = {module.name for module in MODULES}
RANK = {part: rank for rank, row in enumerate(LAYERS) for part in row}


def part_of(name: str) -> str:
    """The entry of LAYERS that a module belongs to."""
    parts = name.split(".")[1:]
    if ".".join(parts[:2]) in RANK:
        return ".".join(parts[:2])
    if parts[:1] == ["passes"] and len(parts) == 2:
        return f"{stage_of_pass(parts[1])}-pass"
    if parts[:1] == ["diagnostics"] and parts[-1] in ERRORS:
        return ERRORS[parts[-1]]
    return parts[0] if parts else ""


def stage_of_pass(stem: str) -> str:
    name = stem.replace("_", "-")
    assert name in PLAN_PIPELINE + GRAPH_PIPELINE, f"pass {name} is in no pipeline"
    return "plan" if name in PLAN_PIPELINE else "graph"


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Every module imported at run time, with its line."""
    stack: list[ast.AST] = [module.tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.If) and is_for_types(node.test):
            stack += node.orelse
            continue
        yield from named_by(node)
        stack += ast.iter_child_nodes(node)


def is_for_types(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def named_by(node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"relative import in line {node.lineno}"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield (inner if inner in NAMES else str(node.module)), node.lineno


def is_front_end(module: Module) -> bool:
    return RANK[part_of(module.name)] <= RANK[FRONT_END]


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_imports_point_backwards(module: Module) -> None:
    own = RANK[part_of(module.name)]
    wrong = [
        f"{module.place}:{line} imports {name}"
        for name, line in imports(module)
        if name.split(".")[0] == "peftc" and RANK[part_of(name)] > own
    ]
    assert not wrong


def test_no_pass_imports_another() -> None:
    passes = {f"peftc.passes.{p.replace('-', '_')}" for p in PLAN_PIPELINE}
    passes |= {f"peftc.passes.{p.replace('-', '_')}" for p in GRAPH_PIPELINE}
    assert passes <= NAMES
    found = [m for m in MODULES if m.name in passes]
    assert not [(m.name, n) for m in found for n, _ in imports(m) if n in passes]


def test_the_front_end_names_nothing_heavy() -> None:
    wrong = [
        f"{module.place}:{line} imports {name}"
        for module in MODULES
        if is_front_end(module) and module.name not in TORCH_IN_FRONT
        for name, line in imports(module)
        if name.split(".")[0] in HEAVY
    ]
    assert not wrong


def test_the_front_end_loads_nothing_heavy() -> None:
    names = [
        module.name
        for module in MODULES
        if is_front_end(module) and module.name not in TORCH_IN_FRONT
    ]
    code = f"""
import importlib, sys
for name in {names!r}:
    importlib.import_module(name)
print(*sorted({HEAVY!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_importing_peftc_and_its_command_line_loads_no_torch() -> None:
    code = (
        "import sys, peftc, peftc.cli.main\n"
        "sys.exit(any(n in sys.modules for n in ('torch', 'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_torch_is_where_architecture_says() -> None:
    """Only the evaluator of the front end knows torch, and Triton is used nowhere."""
    users = {
        m.name for m in MODULES for n, _ in imports(m) if n.split(".")[0] == "torch"
    }
    front = {m.name for m in MODULES if is_front_end(m)}
    assert users & front <= TORCH_IN_FRONT
