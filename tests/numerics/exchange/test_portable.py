"""What only adds low-rank products, as plain low rank of one size."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import peftc
from peftc.diagnostics.core import PeftcError
from tests.numerics.exchange.meeting import base, meet

if TYPE_CHECKING:
    from pathlib import Path

PLAIN = {
    "llama": "lora(q, v, r=4, alpha=8) + lora(q, r=2, alpha=4) + vera(o, r=4)"
    " + loha(k, r=2, alpha=4) + adalora(down, r=2, init_r=2, alpha=4)",
    "gpt2": "lora(q, v, r=4, alpha=8, rs=true) + lora(o, r=2, alpha=2)",
    "phi3": "lora(q, k, up, r=4, alpha=8)",
}


@pytest.mark.slow
@pytest.mark.parametrize(("family", "spec"), PLAIN.items(), ids=PLAIN.keys())
def test_sums_of_products_are_plain(family: str, spec: str, tmp_path: Path) -> None:
    meet(family, spec, tmp_path, to="portable")
    config = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert config["lora_alpha"] == config["r"]
    assert not config["rank_pattern"]
    assert not config["alpha_pattern"]


OTHER = {
    "ia3(k)": "y' = l * y",
    "dora(q, r=2)": "W' = m / ",
    "bitfit(o, create=true)": "y' = y + d",
    "krona(q, a1=8, a2=8)": "kron(A, B)",
    "prefix(p=2)": "k' = drop(K, dropout)",
    "gate(lora(v, r=2))": "is wrapped around `lora`",
}


def test_what_is_no_product_is_named_with_its_place(tmp_path: Path) -> None:
    for number, (call, rule) in enumerate(OTHER.items()):
        spec = f"lora(up, r=2) + {call}"
        compiled = peftc.compile(base("llama"), spec)
        with pytest.raises(PeftcError) as caught:
            compiled.peftc.export(tmp_path / str(number), to="portable")
        (found,) = caught.value.diagnostics
        assert (found.code, found.exit_code) == ("PEFT730", 1)
        assert rule in str(caught.value)
        assert found.span is not None
        assert found.span.start > spec.index("+")
        assert not (tmp_path / str(number)).exists()
