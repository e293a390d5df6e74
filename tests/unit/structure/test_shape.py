"""Sizes that keep the code readable: files, functions, parameters, passes."""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING

import pytest

from tests.unit.structure.tree import (
    FunctionNode,
    Module,
    other_modules,
    package_modules,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FILE_LINES = 500
PASS_LINES = 150
FUNCTION_LINES = 60
PARAMETERS = 6
MEDIAN_LINES = 10
VAGUE = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}

ALL = (*package_modules(), *other_modules())


def lines(node: FunctionNode) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: FunctionNode) -> int:
    args = node.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    own = [arg for arg in named if arg.arg not in ("self", "cls")]
    return len(own)


def longer(limit: int, measure: Callable[[FunctionNode], int]) -> list[str]:
    return [
        f"{module.place}:{node.lineno} {node.name}: {measure(node)}"
        for module in ALL
        for node in module.functions()
        if measure(node) > limit
    ]


def length(module: Module) -> int:
    return module.text.count("\n")


def test_no_file_is_over_500_lines() -> None:
    assert not [m.place for m in ALL if length(m) > FILE_LINES]


def test_no_pass_is_over_150_lines() -> None:
    passes = [m for m in package_modules() if m.name.startswith("peftc.passes")]
    assert passes
    assert not [m.place for m in passes if length(m) > PASS_LINES]


def test_no_function_is_over_60_lines() -> None:
    assert not longer(FUNCTION_LINES, lines)


def test_no_function_takes_over_6_parameters() -> None:
    """But for commands: their parameters are the options of the command line."""
    over = longer(PARAMETERS, parameters)
    assert not [f for f in over if not re.match(r"peftc/cli/\w+.py:\d+ command:", f)]


def test_the_median_function_is_under_10_lines() -> None:
    lengths = [lines(node) for m in package_modules() for node in m.functions()]
    assert median(lengths) < MEDIAN_LINES


@pytest.mark.parametrize("module", package_modules(), ids=lambda m: m.name)
def test_a_module_says_what_it_is_and_has_a_telling_name(module: Module) -> None:
    first = module.tree.body[:1]
    doc = getattr(getattr(first[0], "value", None), "value", None) if first else None
    assert isinstance(doc, str), f"{module.place} has no docstring"
    assert module.path.stem not in VAGUE
