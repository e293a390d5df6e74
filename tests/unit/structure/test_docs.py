"""What the documents show can be compiled, and what they list is what there is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from peftc.driver import check, check_space
from peftc.expr.binders import BINDERS
from peftc.expr.builtins import BUILTINS
from peftc.expr.distributions import DISTRIBUTIONS
from peftc.expr.knobs import KNOB_TYPES
from peftc.expr.numbers import STATIC, WORDS
from peftc.resolve.values import CHOICES
from peftc.syntax.source import Source
from peftc.view import ROLES, SCOPES
from tests.unit.structure.tree import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DOCUMENTS = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^```peft\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\(([^)#:\s]+)(?:#[^)]*)?\)")

BLOCKS = [
    pytest.param(f"{text}\nlora(q)" if is_library else text, id=f"{path.name}-{i}")
    for path in DOCUMENTS
    for i, text in enumerate(BLOCK.findall(path.read_text()))
    for is_library in [not re.search(r"^\w+\(.*\)", text, re.MULTILINE)]
]


@pytest.mark.parametrize("text", BLOCKS)
def test_a_text_in_a_document_checks(text: str) -> None:
    source = Source("<document>", text)
    is_space = any(f"{word}(" in text for word in CHOICES)
    assert check_space(source) if is_space else check(source)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = LINK.findall(path.read_text())
    assert [t for t in targets if not (path.parent / t).exists()] == []


NAMES: dict[str, Iterable[str]] = {
    "binders": BINDERS,
    "builtins": BUILTINS,
    "distributions": DISTRIBUTIONS,
    "types": KNOB_TYPES,
    "static": STATIC,
    "words": WORDS,
    "roles": ROLES,
    "scopes": SCOPES,
    "choices": CHOICES,
}


@pytest.mark.parametrize("kind", NAMES)
def test_the_reference_lists_every_name(kind: str) -> None:
    text = (ROOT / "docs" / "language.md").read_text()
    words = set(re.findall(r"[\w.]+", text))
    assert sorted(set(NAMES[kind]) - words) == []


def test_the_readme_says_both_commands() -> None:
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^python3 -m venv \.venv && .*$", text, re.MULTILINE)
    quickstart, tests = commands
    assert quickstart.endswith(".venv/bin/python examples/quickstart.py")
    assert "<!-- command: test -->\n```sh\n" + tests + "\n```\n" in text
    assert all("pip install -c constraints.txt -e '.[" in c for c in commands)


def test_the_pinned_torch_is_in_range() -> None:
    pins = (ROOT / "constraints.txt").read_text()
    assert re.search(r"^torch==2\.(1[1-9]|[2-9]\d)\.\d+$", pins, re.MULTILINE)
