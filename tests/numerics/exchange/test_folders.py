"""Folders of PEFT that are damaged, hostile, or ask for what is not known here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.exchange.folder import CONFIG, LARGEST_CONFIG, TENSORS
from tests.numerics.exchange.meeting import base, trained
from tests.numerics.runtime.tiny import refused

if TYPE_CHECKING:
    from pathlib import Path

Q = "base_model.model.model.layers.0.self_attn.q_proj"
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


def factors(module: str = Q, r: int = 2, into: int = 64) -> dict[str, torch.Tensor]:
    return {
        f"{module}.lora_A.weight": torch.ones(r, into),
        f"{module}.lora_B.weight": torch.ones(64, r),
    }


def folder(
    path: Path, tensors: dict[str, torch.Tensor] | None = None, **changes: Any
) -> Path:
    path.mkdir(exist_ok=True)
    (path / CONFIG).write_text(json.dumps({**PLAIN, **changes}))
    save_file(factors() if tensors is None else tensors, path / TENSORS)
    return path


def load(path: Path) -> Any:
    return peftc.load(base("llama"), path)


def test_a_plain_folder_loads(tmp_path: Path) -> None:
    model = load(folder(tmp_path, loftq_config={}, megatron_core="megatron.core"))
    assert model.peftc.spec == (
        'lora("model.layers.0.self_attn.q_proj", r=2, alpha=4)\n'
    )


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("layer_replication", [[0, 1], [0, 2]]),
        ("use_qalora", True),
        ("bias", "lora_only"),
        ("lora_bias", True),
        ("megatron_config", {"a": 1}),
        ("trainable_token_indices", [3]),
        ("target_parameters", ["experts.down"]),
        ("init_lora_weights", "pissa"),
        ("peft_type", "POLY"),
        ("a_setting_of_the_future", 1),
        ("r", "2"),
        ("use_rslora", 1),
        ("alpha_pattern", {"(q+)+": 2}),
        ("alpha_pattern", {"(": 2}),
        ("alpha_pattern", {"q_proj": "2"}),
        ("alpha_pattern", {"q_proj": 10**400}),
        ("lora_alpha", 10**400),
        ("lora_alpha", float("nan")),
        ("lora_alpha", float("-inf")),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    setting: str, value: Any, tmp_path: Path
) -> None:
    with pytest.raises(PeftcError, match=setting) as caught:
        load(folder(tmp_path, **{setting: value}))
    assert [d.code for d in caught.value.diagnostics] == ["PEFT733"]


DAMAGED = {
    "another name": {**factors(), f"{Q}.lora_C.weight": torch.ones(1)},
    "another prefix": factors("q_proj"),
    "a missing half": {f"{Q}.lora_A.weight": torch.ones(2, 64)},
    "another rank": factors(r=3),
    "a path that is text": factors('base_model.model.q") + full("*'),
    "nothing": {},
}


@pytest.mark.parametrize("tensors", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_folders_are_refused(
    tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with refused("PEFT732"):
        load(folder(tmp_path, tensors))


def test_a_module_that_the_model_lacks_is_refused(tmp_path: Path) -> None:
    layers = [Q.replace("0", str(n)) for n in range(3)]
    tensors = {k: t for one in layers for k, t in factors(one).items()}
    with pytest.raises(PeftcError, match=r"layers\.2\.self_attn"):
        load(folder(tmp_path, tensors))


def test_sizes_and_values_are_checked(tmp_path: Path) -> None:
    with refused("PEFT623"):
        load(folder(tmp_path, factors(into=63)))
    with refused("PEFT624", "PEFT624"):
        load(folder(tmp_path, {k: t * torch.inf for k, t in factors().items()}))


def test_only_two_regular_files_are_read(tmp_path: Path) -> None:
    for text in ("[]", "{", "[" * 100_000, " " * LARGEST_CONFIG + "{}"):
        path = folder(tmp_path / "config")
        (path / CONFIG).write_text(text)
        with refused("PEFT732"):
            load(path)
    path = folder(tmp_path / "pickle")
    (path / TENSORS).rename(path / "adapter_model.bin")
    with refused("PEFT732"):
        load(path)
    (path / TENSORS).symlink_to(path / "adapter_model.bin")
    with refused("PEFT620"):
        load(path)


PARTS = [
    ("gpt2", "dora(q, r=2)", "one of all rows"),
    ("gpt2", "loha(up, r=2)", "stored transposed"),
    ("phi3", "vera(q, r=2)", "rows of a fused weight"),
    ("llama", "adalora(q) + adalora(q)", "has one already"),
    ("llama", "krona(q, a1=4, a2=8)", "one number there"),
    ("llama", "miss(q, r=4) + miss(k, r=8)", "have one `r`"),
    ("llama", "ia3(ffn) + ia3(down)", "of its input or of its output"),
    ("llama", "gate(lora(q, r=2))", "wrapped around `lora`"),
    ("llama", "adapter(ffn, d=4)", "none of its types"),
]


@pytest.mark.parametrize(("family", "spec", "reason"), PARTS)
def test_what_peft_has_in_another_way_is_refused(
    family: str, spec: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(PeftcError, match=reason) as caught:
        trained(family, spec).peftc.export(tmp_path, to="peft")
    (found,) = caught.value.diagnostics
    assert found.code == "PEFT730"
    assert found.span is not None
    assert not list(tmp_path.iterdir())


def test_what_one_folder_cannot_hold(tmp_path: Path) -> None:
    compiled = trained("llama", "lora(q, r=2) + dora(v, r=2)")
    with refused("PEFT730"):
        compiled.peftc.export(tmp_path, to="peft")
    with refused("PEFT735"):
        compiled.peftc.export(tmp_path, to="pfet")
    with refused("PEFT730"):
        trained("llama", "ssf(q)").peftc.export(tmp_path, to="peft")
    with refused("PEFT731"):
        trained("llama", "lora(q) + ia3(k)").peftc.export(tmp_path, to="peft")
    assert not list(tmp_path.iterdir())
