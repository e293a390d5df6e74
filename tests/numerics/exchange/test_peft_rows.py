"""Prefixes and prompts in PEFT's folders, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import peftc
from peftc.diagnostics.core import PeftcError
from tests.numerics.exchange.meeting import base, meet, trained
from tests.numerics.runtime.tiny import refused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPECS = [
    ("llama", "prefix(p=3, mlp=6)"),
    ("gpt2", "prefix(p=3)"),
    ("bert", "prefix(p=3)"),
    ("phi3", "prefix(p=3)"),
    ("llama", "prompt(p=3)"),
    ("gpt2", "prompt(p=3)"),
    ("phi3", "prompt(p=3)"),
    ("gpt2", "ptuning(p=3, encoder=lstm)"),
    ("llama", "ptuning(p=3, encoder=mlp)"),
    ("t5", "ptuning(p=3, encoder=mlp)"),
    ("bert", "ptuning(p=3, encoder=mlp, at=0)"),
    ("bert", "prompt(p=3, at=0)"),
    ("t5", "prompt(p=3)"),
    ("phi3", "ptuning(p=3, encoder=mlp)"),
]


@pytest.mark.parametrize(("family", "spec"), SPECS)
def test_rows_go_there_and_back(family: str, spec: str, tmp_path: Path) -> None:
    meet(family, spec, tmp_path)


REFUSED = [
    ("t5", "prefix(p=2) @ dec @ self", "encoder-decoder"),
    ("llama", "prefix(p=2, positions=keep)", "always begin behind"),
    ("llama", "prefix(p=2) @ layers(0)", "every layer has rows"),
    ("llama", "prefix(p=2) @ layers(0) + prefix(p=3) @ layers(1)", "differ in number"),
    ("bert", "prompt(p=2)", "at=0"),
    ("llama", 'prompt(p=4, at="0:2, -1:2")', "at=0"),
    ("llama", "prompt(p=2) + prompt(p=3)", "at one place"),
]


@pytest.mark.parametrize(("family", "spec", "reason"), REFUSED)
def test_what_is_elsewhere_in_peft_is_refused(
    family: str, spec: str, reason: str, tmp_path: Path
) -> None:
    compiled = peftc.compile(base(family), spec)
    with pytest.raises(PeftcError, match=reason) as caught:
        compiled.peftc.export(tmp_path, to="peft")
    assert [d.code for d in caught.value.diagnostics] == ["PEFT730"]


def test_a_prefix_of_another_width_is_refused(tmp_path: Path) -> None:
    trained("gpt2", "prefix(p=3)").peftc.export(tmp_path, to="peft")
    with refused("PEFT732"):
        peftc.load(base("llama"), tmp_path)
    with pytest.raises(PeftcError, match="encoder-decoder"):
        peftc.load(base("t5"), tmp_path)
