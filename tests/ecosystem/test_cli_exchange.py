"""`peftc export --to` and `peftc import`: what they write and what they refuse."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

import peftc as package
from peftc.sites.load import load
from tests.ecosystem.commands import TINY, ok, peftc
from tests.models import randomise

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("kept_views")


def adapter(spec: str, folder: Path) -> str:
    model: Any = load(TINY, random_init=0).model
    package.compile(model, spec)
    randomise(model)
    model.peftc.save(folder)
    return str(folder)


def test_an_adapter_goes_out_and_comes_in(tmp_path: Path) -> None:
    ours = adapter("lora(q, v, r=4)", tmp_path / "ours")
    folders = [str(tmp_path / name) for name in ("peft", "back", "portable")]
    ok("export", ours, "-o", folders[0], "--to", "peft")
    result = ok("import", folders[0], TINY, "--random-init", "0", "-o", folders[1])
    assert result.stdout.startswith('lora("model.layers.*.self_attn.q_proj", "')
    ok("export", folders[1], "-o", folders[2], "--to", "portable")

    config = json.loads((tmp_path / "peft" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["q_proj", "v_proj"]
    (first, second) = (
        load_file(tmp_path / name / "adapter_model.safetensors")
        for name in ("peft", "portable")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        scale = 4.0 if "lora_B" in name else 1.0  # alpha / r is in the tensors there
        assert torch.equal(second[name], scale * tensor)


def test_a_folder_of_another_tool_is_imported_first(tmp_path: Path) -> None:
    ours = adapter("lora(q, v, r=4)", tmp_path / "ours")
    folder = str(tmp_path / "peft")
    ok("export", ours, "-o", folder, "--to", "peft")
    result = peftc("export", folder, "-o", str(tmp_path / "out"))
    assert result.exit_code == 3
    assert "PEFT620" in result.output
    assert "peftc import" in result.output


def test_what_a_format_cannot_say_ends_with_its_place(tmp_path: Path) -> None:
    ours = adapter("lora(q, r=4) + ia3(k)", tmp_path / "ours")
    result = peftc("export", ours, "-o", str(tmp_path / "out"), "--to", "portable")
    assert result.exit_code == 1
    assert "PEFT730" in result.output
    assert "<spec>:1:20" in result.output
    assert not (tmp_path / "out").exists()
