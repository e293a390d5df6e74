"""Low rank in PEFT's folders, both ways, on five architectures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.numerics.exchange.meeting import meet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPECS = {
    "llama": "lora(q, v, r=4, alpha=8) + lora(down, r=2, alpha=8) @ layers(1)",
    "gpt2": "lora(q, v, r=4, alpha=8) + lora(up, r=4, alpha=8)",
    "bert": "lora(q, v, r=4, alpha=8, rs=true)",
    "t5": "lora(q, v, r=4, alpha=8) + lora(o, r=2, alpha=2) @ cross",
    "phi3": "lora(q, k, up, r=4, alpha=8)",
}


@pytest.mark.parametrize(("family", "spec"), SPECS.items(), ids=SPECS.keys())
def test_low_rank_goes_there_and_back(family: str, spec: str, tmp_path: Path) -> None:
    meet(family, spec, tmp_path)


DORA = {
    "llama": "dora(q, down, r=4, alpha=8)",
    "gpt2": "dora(up, o, r=4, alpha=8)",
    "bert": "dora(v, r=4, alpha=8)",
    "t5": "dora(q, r=4, alpha=8) @ enc",
    "phi3": "dora(o, r=4, alpha=8)",
}


@pytest.mark.parametrize(("family", "spec"), DORA.items(), ids=DORA.keys())
def test_magnitudes_go_there_and_back(family: str, spec: str, tmp_path: Path) -> None:
    his = meet(family, spec, tmp_path)
    assert his.peft_config["default"].use_dora


def test_a_method_is_known_by_its_definition(tmp_path: Path) -> None:
    definition = """
    method mine(r: size = 8, alpha: scale = 16, dropout: fraction = 0,
                rs: flag = false) on linear {
      param A[r, in] ~ kaiming(5), B[out, r] = 0
      y' = y + choose(rs, alpha / sqrt(r), alpha / r) * B(A(drop(x, dropout)))
    }
    mine(q, r=4, alpha=8)
    """
    his = meet("llama", definition, tmp_path)
    config = his.peft_config["default"]
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 8, {"q_proj"})
