"""Modules that are trained as a whole in PEFT's folders, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from peft import LoraConfig, PromptTuningConfig, get_peft_model

import peftc
from peftc.exchange.exporting import export
from peftc.runtime.state import read_adapter
from tests.models import randomise, relative
from tests.numerics.exchange.meeting import EXACT, base, logits, meet, trained
from tests.numerics.runtime.tiny import refused

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPECS = [
    ("llama", "lora(q, r=2, alpha=4) + full(head, k)"),
    ("gpt2", "ia3(up) + full(o)"),
    ("llama", "lora(q, r=2, alpha=4) + norm_tuning(norm)"),
    ("bert", "prompt(p=2, at=0) + full(head)"),
    ("t5", "lora(q, r=2, alpha=4) + full(o)"),
    ("phi3", "lora(o, r=2, alpha=4) + full(down)"),
    ("llama", "norm_tuning(norm)"),
    ("bert", "norm_tuning(norm) + full(head)"),
]


@pytest.mark.parametrize(("family", "spec"), SPECS)
def test_modules_go_there_and_back(family: str, spec: str, tmp_path: Path) -> None:
    meet(family, spec, tmp_path)


CONFIGS = {
    "lora": LoraConfig(task_type="SEQ_CLS", target_modules=["query"], r=2),
    "prompt": PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_classifier_that_peft_trains_comes_in(config: Any, tmp_path: Path) -> None:
    his = get_peft_model(base("bert"), config).double()
    randomise(his, scale=0.2)
    his.save_pretrained(str(tmp_path))
    mine = peftc.load(base("bert"), tmp_path)
    assert 'full("classifier")' in mine.peftc.spec
    assert relative(logits(mine, "bert"), logits(his, "bert")) < EXACT


def test_norms_that_peft_trains_come_in(tmp_path: Path) -> None:
    """PEFT takes all modules whose paths end so: `input_layernorm` as well."""
    config = LoraConfig(target_modules=["q_proj"], r=2, modules_to_save=["norm"])
    his = get_peft_model(base("llama"), config)
    randomise(his, scale=0.2)
    his.save_pretrained(str(tmp_path))
    mine = peftc.load(base("llama"), tmp_path)
    assert mine.peftc.spec.count("layernorm") == 2
    assert relative(logits(mine, "llama"), logits(his, "llama")) < EXACT


def test_without_the_base_there_is_no_whole_module(tmp_path: Path) -> None:
    trained("llama", "lora(q, r=2) + full(head)").peftc.save(tmp_path / "ours")
    adapter = read_adapter(tmp_path / "ours")
    with refused("PEFT734"):
        export(adapter, tmp_path / "his", "peft")


def test_what_peft_cannot_save_beside_is_refused(tmp_path: Path) -> None:
    for spec in ("full(q)", "lora(q, r=2) + full(q)"):
        with refused("PEFT730"):
            trained("llama", spec).peftc.export(tmp_path, to="peft")
