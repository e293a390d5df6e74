"""The recipes of DEVELOPING.md are what is in the tree, letter by letter."""

from __future__ import annotations

import re
from textwrap import dedent

import pytest

from peftc.passes import PIPELINE
from peftc.pipeline import load
from tests.unit.structure.tree import ROOT

TEXT = (ROOT / "DEVELOPING.md").read_text()
FILE = re.compile(r"<!-- file: (\S+) -->\n *```\w+\n(.*?)\n *```\n", re.DOTALL)
FILES = FILE.findall(TEXT)


def test_a_method_and_its_test_are_shown() -> None:
    assert [path.partition("/")[0] for path, _ in FILES] == ["peftc", "tests"]


@pytest.mark.parametrize(("path", "text"), FILES, ids=[path for path, _ in FILES])
def test_the_file_that_is_shown_is_the_file(path: str, text: str) -> None:
    assert (ROOT / path).read_text() == dedent(text) + "\n"


def test_every_path_that_is_named_exists() -> None:
    named = re.findall(r"`((?:peftc|passes|tests|examples)/[\w/.]+)`", TEXT)
    made_by_the_reader = {"passes/your_pass.py"}
    missing = [p for p in named if not (ROOT / p).exists()]
    assert set(missing) == made_by_the_reader


@pytest.mark.parametrize("name", PIPELINE)
def test_a_pass_shows_what_it_rewrites_and_when_not(name: str) -> None:
    (found,) = load([name])
    assert "rewrite:" in (found.run.__doc__ or "")
    assert "guards:" in (found.run.__doc__ or "")
