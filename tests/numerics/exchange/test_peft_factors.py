"""Other products of small tensors in PEFT's folders, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft import AdaLoraConfig, LoKrConfig, PeftModel, get_peft_model

import peftc
from tests.models import randomise, relative
from tests.numerics.exchange.meeting import EXACT, base, logits, meet

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPECS = [
    ("llama", "vera(q, r=4) + vera(v, down, r=3)"),
    ("gpt2", 'vera("*.c_attn", up, r=4)'),
    ("bert", "vera(q, down, r=3)"),
    ("t5", "vera(q, v, r=4)"),
    ("phi3", "vera(o, down, r=3)"),
    ("llama", "loha(q, r=2, alpha=3) + loha(up, r=3, alpha=6)"),
    ("bert", "loha(q, down, r=2)"),
    ("t5", "loha(q, down, r=2)"),
    ("phi3", "loha(o, down, r=2)"),
    ("llama", "krona(q, up, s=1.5) + krona(k, s=2)"),
    ("t5", "krona(q, v, down, a1=4, a2=4)"),
    ("bert", "krona(q, down)"),
    ("phi3", "krona(o, down)"),
    ("llama", "adalora(q, init_r=4) + adalora(down, init_r=2, alpha=3)"),
    ("gpt2", "adalora(up, o, init_r=3)"),
    ("bert", "adalora(q, down, init_r=3)"),
    ("t5", "adalora(q, down, init_r=3)"),
    ("llama", "miss(q, down, r=4)"),
    ("phi3", "adalora(o, down, init_r=3)"),
]


@pytest.mark.parametrize(("family", "spec"), SPECS)
def test_factors_go_there_and_back(family: str, spec: str, tmp_path: Path) -> None:
    meet(family, spec, tmp_path)


def theirs(config: Any) -> Any:
    network = get_peft_model(base("llama"), config)
    randomise(network, scale=0.2)
    return network.double()


@pytest.mark.parametrize("both", [False, True])
def test_kronecker_products_of_low_rank_come_and_go(both: bool, tmp_path: Path) -> None:
    """With PEFT's defaults the second factor is a product itself, and the first is not;
    q's first factor stays whole, as its sizes are below twice the rank."""
    modules = ["q_proj", "down_proj"]
    config = LoKrConfig(r=3, alpha=4, target_modules=modules, decompose_both=both)
    his = theirs(config)
    his.save_pretrained(str(tmp_path / "his"))
    mine = peftc.load(base("llama"), tmp_path / "his")
    assert relative(logits(mine, "llama"), logits(his, "llama")) < EXACT
    mine.peftc.export(tmp_path / "mine", to="peft")
    back = peftc.load(base("llama"), tmp_path / "mine")
    assert torch.equal(logits(back, "llama"), logits(mine, "llama"))
    assert back.peftc.spec == mine.peftc.spec


def test_ranks_that_were_cut_come_in(tmp_path: Path) -> None:
    """PEFT keeps the triplets of its pattern, and the scale of all at the start."""
    options: dict[str, Any] = {"init_r": 4, "target_r": 2, "total_step": 10}
    his = theirs(AdaLoraConfig(target_modules=["q_proj", "v_proj"], **options))
    pattern = {
        f"model.layers.{layer}.self_attn.{role}_proj.lora_E": kept
        for layer in range(2)
        for role, kept in {"q": [1, 0, 1, 0], "v": [0, 1, 0, 0]}.items()
    }
    flags = {name: list(map(bool, kept)) for name, kept in pattern.items()}
    his.peft_config["default"].rank_pattern = flags
    his.save_pretrained(str(tmp_path))
    his = PeftModel.from_pretrained(base("llama"), str(tmp_path))
    mine = peftc.load(base("llama"), tmp_path)
    shapes = {p.shape[0] for p in mine.parameters() if p.requires_grad and p.ndim == 1}
    assert shapes == {1, 2}
    assert relative(logits(mine, "llama"), logits(his, "llama")) < EXACT
