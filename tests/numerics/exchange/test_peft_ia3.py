"""Scales in PEFT's folders, both ways, on five architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.numerics.exchange.meeting import meet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPECS = {
    "llama": "ia3(k, v, ffn)",
    "gpt2": "ia3(k, v) + ia3(v) @ layers(0)",
    "bert": "ia3(k, v, ffn)",
    "t5": "ia3(k, v, ffn)",
    "phi3": "ia3(k, v, ffn)",
}


@pytest.mark.parametrize(("family", "spec"), SPECS.items(), ids=SPECS.keys())
def test_scales_go_there_and_back(family: str, spec: str, tmp_path: Path) -> None:
    meet(family, spec, tmp_path)
