"""The private parts of torch that are used are looked up in one place."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.sites import interfaces
from peftc.sites.interfaces import OLDEST, PRIVATE, TESTED, check_interfaces
from tests.unit.structure.tree import ROOT, package_modules

if TYPE_CHECKING:
    from collections.abc import Iterator


def said(*private: str) -> list[str]:
    with pytest.raises(PeftcError) as caught:
        check_interfaces(private)
    assert {one.code for one in caught.value.diagnostics} == {"PEFT633"}
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", ["torch._dynamo.gone", "torch._gone.anything"])
def test_what_is_missing_is_said(name: str) -> None:
    assert any(f"it has no `{name}`" in line for line in said(name))


def test_an_old_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interfaces, "version", lambda package: "2.10.1+cpu")
    text = "\n".join(said())
    assert "torch 2.10.1+cpu: 2.11 is the oldest that works" in text
    assert "transformers 2.10.1+cpu: 5.0 is the oldest that works" in text


def test_versions_are_those_of_the_project() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    constraints = (ROOT / "constraints.txt").read_text()
    for package, oldest in OLDEST.items():
        assert f'"{package}>={oldest[0]}.{oldest[1]}"' in project
        assert f"\n{package}=={TESTED[package]}." in constraints


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def used(tree: ast.Module) -> Iterator[str]:
    """The full names by which a module reads anything of torch."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield dotted(node)


def test_every_private_part_in_use_is_listed() -> None:
    found = set()
    for module in package_modules():
        for name in used(module.tree):
            first, *rest = name.split(".")
            if first == "torch" and any(
                part[:1] == "_" != part[:2][1:] for part in rest
            ):
                found.add(name)
    known = {*PRIVATE, *(name.rpartition(".")[0] for name in PRIVATE)}
    assert "torch._dynamo.exc.Unsupported" in found
    for name in found:
        assert name in known or name.startswith(PRIVATE), name
