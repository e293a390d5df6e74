"""Sites are found by the dataflow: no file knows a family or a parameter by name.

Family names are those of transformers; parameter names those of the tested families.
Identifiers and strings are looked at; docstrings are for people.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest
import transformers as hf

from tests.unit.structure.test_names import docstrings, words
from tests.unit.structure.tree import ROOT, Module, package_modules

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDINARY = {"align", "git", "led", "sam", "bit", "rag", "dia"}
"""Words and syllables that are families too."""
TELLING = {
    "wte",
    "wpe",
    "dense",
    "fc1",
    "fc2",
    "wi",
    "wo",
    "mlp",
    "embeddings",
    "pooler",
}
"""Parts of parameters' paths without an underscore that would tell a role."""

EXPECTED = ROOT / "tests" / "families" / "expected"
MODULES = [m for m in package_modules() if m.name.startswith("peftc.sites.")]


def families() -> set[str]:
    return {kind for kind in hf.CONFIG_MAPPING if kind.isalnum()} - ORDINARY | {"gpt"}


def parameters() -> set[str]:
    """The parts of the paths in all expectations, but for words that are general.

    `layer_norm` is the name of an operator too, `feed_forward` that of a sublayer.
    """
    texts = (path.read_text(encoding="utf-8") for path in EXPECTED.iterdir())
    lines = (line.split() for text in texts for line in text.splitlines())
    paths = (line[1] for line in lines if len(line) > 2)
    parts = {part.lower() for path in paths for part in path.split(".")}
    return {p for p in parts if "_" in p or p in TELLING} - {
        "layer_norm",
        "feed_forward",
    }


def strings(module: Module) -> Iterator[str]:
    """Whole identifiers and every dotted or spaced part of strings."""
    documentation = docstrings(module.tree)
    for node in ast.walk(module.tree):
        if node in documentation:
            continue
        for field in ("id", "attr", "name", "arg"):
            if isinstance(value := getattr(node, field, None), str):
                yield value.lower()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from re.findall(r"\w+", node.value.lower())


def test_there_is_something_to_look_for() -> None:
    assert {"llama", "bert", "t5", "mixtral", "gpt"} <= families()
    assert {"q_proj", "c_attn", "query_key_value", "gate_up_proj"} <= parameters()
    assert parameters() >= TELLING
    assert len(MODULES) > 10


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_no_family_is_known(module: Module) -> None:
    documentation = docstrings(module.tree)
    nodes = (n for n in ast.walk(module.tree) if n not in documentation)
    found = {word for node in nodes for word in words(node)}
    assert sorted(found & families()) == []


@pytest.fixture(scope="module")
def known() -> set[str]:
    return parameters()


@pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)
def test_no_parameter_is_known(module: Module, known: set[str]) -> None:
    assert sorted(set(strings(module)) & known) == []


def test_a_mention_would_be_seen(known: set[str]) -> None:
    text = '"""q_proj"""\nif "self_attn.q_proj" in path or node.c_attn: pass\n'
    seen = set(strings(Module("peftc.x", ROOT / "x.py", text)))
    assert {"q_proj", "self_attn", "c_attn"} == seen & known
