"""The MODEL argument: what works, and that everything else is said before it costs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from peftc.diagnostics.core import PeftcError
from peftc.sites.load import architecture, load, sketch
from tests.models import bert, llama

if TYPE_CHECKING:
    from pathlib import Path


def refused(source: Any, **options: Any) -> tuple[str, str]:
    """The code and the text of the one diagnostic of a load that fails."""
    with pytest.raises(PeftcError) as error:
        load(source, **options)
    (found,) = error.value.diagnostics
    assert error.value.exit_code == 3
    return found.code, str(found)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved model."""
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path)
    return tmp_path


def configure(folder: Path, **changes: Any) -> Path:
    """Change the configuration in a folder; None removes a key."""
    path = folder / "config.json"
    said = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in said.items() if v is not None}))
    return path


def test_a_folder(folder: Path) -> None:
    loaded = load(folder)
    saved = load_file(folder / "model.safetensors")
    assert loaded.notes == ()
    assert not loaded.model.training
    assert type(loaded.model) is hf.LlamaForCausalLM
    assert all(torch.equal(loaded.model.state_dict()[n], t) for n, t in saved.items())


def test_shards(folder: Path) -> None:
    llama().save_pretrained(folder, max_shard_size="100KB")
    (folder / "model.safetensors").unlink()
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    assert load(str(folder)).notes == ()


def test_the_meta_device_needs_no_weights(folder: Path) -> None:
    for source in (folder, folder / "config.json", llama().config):
        model = load(source, meta=True).model
        assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_sketch_has_no_weights_either() -> None:
    config = hf.LlamaConfig(hidden_size=8192, num_attention_heads=64)
    model = sketch(config)
    shape = model.get_parameter("model.layers.31.mlp.up_proj.weight").shape
    assert tuple(shape) == (11008, 8192)


def test_random_weights_are_those_of_the_seed(folder: Path) -> None:
    config = folder / "config.json"
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    one, same, other = (load(config, random_init=s).model for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [m.lm_head.weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_missing_head_is_drawn_and_said(tmp_path: Path) -> None:
    bert().bert.save_pretrained(tmp_path)
    configure(tmp_path, architectures=["BertForSequenceClassification"])
    (note,) = load(tmp_path).notes
    assert "classifier.weight" in note
    assert "at random" in note


def test_weights_of_no_use_are_said(tmp_path: Path) -> None:
    bert().save_pretrained(tmp_path)
    configure(tmp_path, architectures=["BertModel"])
    (note,) = load(tmp_path).notes
    assert "`classifier.bias`" in note
    assert "not in the model" in note


def test_not_found(tmp_path: Path) -> None:
    """PEFT400."""
    assert refused(tmp_path) == (
        "PEFT400",
        f"[PEFT400] no such model: `{tmp_path}`: the folder has no config.json",
    )
    assert refused(tmp_path / "x" / "y" / "z")[0] == "PEFT400"


def test_not_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise OSError("no such repository\nand more")

    monkeypatch.setattr(hf.AutoConfig, "from_pretrained", unreachable)
    code, text = refused("someone/nothing")
    assert code == "PEFT400"
    assert text.endswith("and the hub gave: no such repository")


BROKEN = {
    "not json": b'{"model_type": "llama", "hidden_size":',
    "not utf-8": b"\xff\xfe\x00",
    "a list": b"[]",
    "no type": b"{}",
    "type is no text": b'{"model_type": 3}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_unreadable_configuration(tmp_path: Path, name: str) -> None:
    """PEFT401."""
    (tmp_path / "config.json").write_bytes(BROKEN[name])
    assert refused(tmp_path, meta=True)[0] == "PEFT401"


def test_unknown_type(folder: Path) -> None:
    """PEFT402."""
    with pytest.raises(PeftcError) as error:
        load(configure(folder, model_type="lama"), meta=True)
    (found,) = error.value.diagnostics
    assert found.code == "PEFT402"
    assert found.fill(found.help) == "did you mean `llama`?"


def test_code_of_a_repository_is_not_run(folder: Path) -> None:
    code = {"AutoConfig": "evil.Config"}
    path = configure(folder, model_type="evil", auto_map=code)
    (folder / "evil.py").write_text("raise SystemExit('it was run')")
    assert refused(path, meta=True)[0] == "PEFT402"
    known = configure(folder, model_type="llama", auto_map=code)
    assert load(known, meta=True).model.config.model_type == "llama"


def test_unknown_architecture(folder: Path) -> None:
    path = configure(folder, architectures=["LlamaForCasualLM"])
    assert refused(path, meta=True)[0] == "PEFT402"


def test_ambiguous_architecture(tmp_path: Path) -> None:
    """PEFT403."""
    path = tmp_path / "config.json"
    path.write_text('{"model_type": "bert"}')
    code, text = refused(path, meta=True)
    assert code == "PEFT403"
    assert "`BertLMHeadModel`, `BertForMaskedLM`" in text
    both = hf.BertConfig(architectures=["BertModel", "BertForMaskedLM"])
    assert refused(both, meta=True)[0] == "PEFT403"


def test_an_architecture_that_only_one_class_fits() -> None:
    assert architecture(hf.LlamaConfig(), "x") is hf.LlamaForCausalLM
    assert architecture(hf.T5Config(), "x") is hf.T5ForConditionalGeneration
    assert architecture(hf.CLIPTextConfig(), "x") is hf.CLIPTextModel


def test_no_weights(folder: Path) -> None:
    """PEFT404."""
    assert refused(folder / "config.json")[0] == "PEFT404"
    assert refused(llama().config)[0] == "PEFT404"
    (folder / "model.safetensors").unlink()
    assert refused(folder)[0] == "PEFT404"
    assert load(folder, random_init=0).notes == ()


def test_unreadable_weights(folder: Path) -> None:
    """PEFT405."""
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for damaged in (
        b"",
        whole[:5],
        whole[:300],
        whole[:-1],
        b"\xff" * 64,
        whole + b"x",
    ):
        path.write_bytes(damaged)
        assert refused(folder)[0] == "PEFT405"


INDEXES = {
    "no json": "{",
    "no map": "{}",
    "a list": '{"weight_map": []}',
    "gone": '{"weight_map": {"a": "model-1.safetensors"}}',
    "outside": '{"weight_map": {"a": "../model.safetensors"}}',
}


@pytest.mark.parametrize("name", INDEXES)
def test_unreadable_shards(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    (folder / "model.safetensors.index.json").write_text(INDEXES[name])
    assert refused(folder)[0] == "PEFT405"


def change(folder: Path, **changes: Any) -> None:
    """Replace tensors in the checkpoint by path; None removes one."""
    path = folder / "model.safetensors"
    tensors = load_file(path) | {k.replace("__", "."): t for k, t in changes.items()}
    kept = {k: t for k, t in tensors.items() if t is not None}
    save_file(kept, path, {"format": "pt"})


def test_missing_weights(folder: Path) -> None:
    """PEFT406."""
    change(folder, model__norm__weight=None)
    code, text = refused(folder)
    assert code == "PEFT406"
    assert text.endswith("1 weights are missing: `model.norm.weight`")
    (note,) = load(folder, random_init=0).notes
    assert "model.norm.weight" in note


def test_weights_of_another_shape(folder: Path) -> None:
    change(folder, model__norm__weight=torch.ones(65))
    code, text = refused(folder, random_init=0)
    assert code == "PEFT406"
    assert "of another shape: `model.norm.weight`" in text


BAD: dict[str, dict[str, Any]] = {
    "indivisible": {"hidden_size": 65},
    "zero": {"hidden_size": 0},
    "negative": {"num_hidden_layers": -1, "vocab_size": -5},
    "text": {"hidden_size": "big"},
    "absurd": {"vocab_size": 10**18},
}


@pytest.mark.parametrize("name", BAD)
def test_a_model_that_cannot_be_built(folder: Path, name: str) -> None:
    """PEFT407."""
    assert refused(configure(folder, **BAD[name]), meta=True)[0] == "PEFT407"


def test_too_large(folder: Path) -> None:
    """PEFT408."""
    path = configure(folder, vocab_size=10**13)
    code, text = refused(path, random_init=0)
    assert code == "PEFT408"
    assert "GiB of memory" in text
