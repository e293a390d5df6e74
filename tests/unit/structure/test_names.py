"""No pass, generator or run-time file knows a method by its name.

The names come from the standard library itself.  Identifiers and string constants are
looked at; docstrings and comments are text for people.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

from tests.unit.structure.tree import ROOT, Module, package_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

FREE_OF_NAMES = {
    *("syntax", "expr", "resolve", "plan", "pipeline", "passes", "codegen", "sites"),
    *("rewrite", "runtime", "driver", "view", "tuning", "training", "exchange"),
}
DEFINITION = re.compile(r"^\s*method\s+(\w+)", re.MULTILINE)
FILES = sorted((ROOT / "peftc" / "methods").glob("*.peft"))
METHODS = {name for file in FILES for name in DEFINITION.findall(file.read_text())}
ORDINARY = {
    *("adapter", "distill", "far", "full", "gate", "miss", "optimizer", "parallel"),
    *("prefix", "prompt", "schedule"),
}
"""English words that are methods too: they count where something is compared with the
word and the comparison mentions methods."""

CORRESPONDENCES = ("peftc.exchange.peft", "peftc.exchange.adapterhub")
"""What a method is called in another tool: a file for each type of that tool."""

MODULES = [
    module
    for module in package_modules()
    if module.name.count(".")
    and module.name.split(".")[1] in FREE_OF_NAMES
    and not module.name.startswith(CORRESPONDENCES)
]


def docstrings(tree: ast.Module) -> set[ast.AST]:
    """Strings that stand alone as statements: documentation of what is around them."""
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def words(node: ast.AST) -> Iterator[str]:
    """The words of the identifiers and strings of one node."""
    for field in ("id", "attr", "name", "arg"):
        value = getattr(node, field, None)
        if isinstance(value, str):
            yield from value.lower().split("_")
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from re.findall(r"[a-z0-9]+", node.value.lower())


def compared(node: ast.AST) -> Iterator[str]:
    """Whole strings that a comparison or a `match` holds against a method."""
    if isinstance(node, ast.Compare | ast.Match) and "method" in ast.unparse(node):
        inner = (n.value for n in ast.walk(node) if isinstance(n, ast.Constant))
        yield from (value for value in inner if isinstance(value, str))


def mentions(module: Module) -> list[str]:
    documentation = docstrings(module.tree)
    return [
        f"{module.place}:{getattr(node, 'lineno', '?')} {word}"
        for node in ast.walk(module.tree)
        if node not in documentation
        for word in (*(w for w in words(node) if w not in ORDINARY), *compared(node))
        if word in METHODS
    ]


def test_the_names_are_found() -> None:
    assert {"lora", "ia3", "bitfit", "krona", "adapter"} <= METHODS


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_no_method_is_known_by_name(module: Module) -> None:
    assert mentions(module) == []


def test_a_mention_would_be_seen() -> None:
    text = '"""lora"""\nia3_scale = lora\nif use.method == "gate": gate("adapter")\n'
    found = mentions(Module("peftc.x", ROOT / "x.py", text))
    assert sorted(line.split()[1] for line in found) == ["gate", "ia3", "lora"]
