"""Bases and adapters to folders that Transformers reads without peftc."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from peft.utils.merge_utils import task_arithmetic, ties
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import peftc
from peftc.diagnostics.core import PeftcError
from peftc.merging.change import Choices
from peftc.merging.combine import Sum
from peftc.merging.folder import merge_folder
from peftc.merging.memory import merge_loaded
from peftc.runtime.state import read_adapter
from peftc.sites.load import load
from tests.ecosystem.commands import ok
from tests.ecosystem.commands import peftc as command
from tests.models import model, randomise, relative, tokens

if TYPE_CHECKING:
    from typing_extensions import Self

ALONE = Sum((1.0,))
SPECS = {
    "llama": "lora(q, v, r=2) + dora(down, r=2) + ia3(k, ffn)",
    "gpt2": "lora(q, v, r=2) + bitfit(o)",
    "bert": "lora(q, v, r=2) + loha(up, r=2)",
    "t5": "lora(q, v, r=2) + vera(o, r=4)",
}


def written(family: str, folder: Path, *, shard: str = "40KB", **facts: Any) -> Path:
    """A base's folder, in several files."""
    made = model(family, **facts)
    made.save_pretrained(folder, max_shard_size=shard)
    return folder


def tuned(base: Path, spec: str, folder: Path, seed: int = 5, **more: Any) -> Any:
    """A compiled model with an adapter that does something, and its file."""
    made: Any = peftc.compile(load(base).model, spec, **more)
    randomise(made, seed=seed)
    made.peftc.save(folder)
    return made


def logits(one: Any, **more: Any) -> torch.Tensor:
    if one.config.is_encoder_decoder:
        more["decoder_input_ids"] = tokens(seed=2)
    with torch.no_grad():
        found: torch.Tensor = one.eval()(input_ids=tokens(), **more).logits
    return found


def state(folder: Path) -> dict[str, torch.Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    return {name: t for file in files for name, t in load_file(file).items()}


@pytest.mark.parametrize("family", SPECS)
def test_files_are_those_of_a_merge_in_memory(family: str, tmp_path: Path) -> None:
    base = written(family, tmp_path / "base")
    (base / "tokenizer.json").write_text("{}")
    made = tuned(base, SPECS[family], tmp_path / "adapter")
    out = tmp_path / "out"
    out.mkdir()
    read = read_adapter(tmp_path / "adapter")
    told = merge_folder([read], base, out, ALONE)
    assert set(os.listdir(out)) == set(os.listdir(base))
    assert len(list(out.glob("*.safetensors"))) > 1
    plain = load(out).model
    assert type(plain) is type(load(base).model)
    assert relative(logits(plain), logits(made)) < 2e-5
    made.peftc.merge()
    wanted = made.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert told.lost
    assert not told.stored
    in_memory = load(base).model
    merge_loaded([read], in_memory, ALONE)
    for name, value in in_memory.state_dict().items():
        assert torch.equal(value, wanted[name]), name


def test_a_bias_that_is_new(tmp_path: Path) -> None:
    base = written("llama", tmp_path / "base", attention_bias=False)
    tuned(base, "bitfit(q, create=true)", tmp_path / "adapter")
    (tmp_path / "out").mkdir()
    with pytest.raises(PeftcError, match="PEFT632"):
        merge_folder(
            [read_adapter(tmp_path / "adapter")], base, tmp_path / "out", ALONE
        )
    assert not os.listdir(tmp_path / "out")


def test_another_base_is_refused(tmp_path: Path) -> None:
    base = written("llama", tmp_path / "base")
    tuned(base, "lora(q, r=2)", tmp_path / "adapter")
    other = tmp_path / "other"
    changed = load(base).model
    with torch.no_grad():
        changed.get_parameter("model.norm.weight")[0] += 1
    changed.save_pretrained(other)
    line = ("merge", str(tmp_path / "adapter"), str(other), "-o", str(tmp_path / "out"))
    told = command(*line)
    assert told.exit_code == 3
    assert "PEFT625" in told.stderr
    assert "model.norm.weight" in told.stderr
    assert not (tmp_path / "out").exists()
    ok(*line, "--any-base")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_does_not_merge(tmp_path: Path) -> None:
    base = written("llama", tmp_path / "base")
    tuned(base, "adapter(ffn, d=2)", tmp_path / "adapter")
    out = str(tmp_path / "out")
    told = command("merge", str(tmp_path / "adapter"), str(base), "-o", out)
    assert "PEFT630" in told.stderr
    assert not (tmp_path / "out").exists()


# --- tied weights ---------------------------------------------------------------------


@pytest.mark.parametrize("untie", [False, True])
def test_tied_weights(untie: bool, tmp_path: Path) -> None:
    base = written("llama", tmp_path / "base", tie_word_embeddings=True)
    made = tuned(base, "lora(q, r=2)", tmp_path / "adapter")
    line = ["merge", str(tmp_path / "adapter"), str(base), "-o", str(tmp_path / "out")]
    ok(*line, *(["--untie"] if untie else []))
    plain: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert plain.config.tie_word_embeddings is not untie
    table, head = plain.get_input_embeddings().weight, plain.lm_head.weight
    assert (table is head) is not untie
    assert torch.equal(table, head)
    assert ("lm_head.weight" in state(tmp_path / "out")) is untie
    assert relative(logits(plain), logits(made)) < 1e-5


# --- weights in codes -----------------------------------------------------------------


@pytest.mark.parametrize("recode", [False, True])
def test_a_base_in_codes(recode: bool, tmp_path: Path) -> None:
    """To what codes decode to; or on the grid of codes, where they are exact again."""
    spec = "quantize(q, v, kind=nf4, block=32) + lora(q, v, r=2)"
    base = written("llama", tmp_path / "base")
    made = tuned(base, spec, tmp_path / "adapter")
    line = ["merge", str(tmp_path / "adapter"), str(base), "-o", str(tmp_path / "out")]
    told = ok(*line, *(["--recode"] if recode else [])).stderr
    error = float(told.split("in codes by ")[1].split()[0])
    plain = load(tmp_path / "out").model
    measured = relative(logits(plain), logits(made))
    if not recode:
        assert max(error, measured) < 1e-5
        return
    assert 1e-3 < error < 1
    assert measured > 1e-3
    again: Any = peftc.compile(plain, "quantize(q, v, kind=nf4, block=32)")
    exact = load(tmp_path / "out").model
    assert relative(logits(again), logits(exact)) < 1e-5


# --- several adapters -----------------------------------------------------------------


def test_sums_are_those_of_other_implementations() -> None:
    stream = torch.Generator().manual_seed(0)
    deltas = [torch.randn(6, 8, generator=stream) for _ in range(3)]
    numbers = (0.5, 1.5, -0.25)
    weights = torch.tensor(numbers)
    found = Sum(numbers).of(deltas, "w")
    torch.testing.assert_close(found, task_arithmetic(deltas, weights))
    found = Sum(numbers, "ties", 0.4).of(deltas, "w")
    torch.testing.assert_close(found, ties(deltas, weights, 0.4))


def test_dare_keeps_a_part_and_the_mean() -> None:
    delta = torch.full((200, 200), 2.0)
    how = Sum((1.0,), "dare", 0.25)
    found = how.of([delta], "w")
    assert set(found.unique().tolist()) == {0.0, 8.0}
    assert abs(found.mean().item() - 2) < 0.05
    assert torch.equal(found, how.of([delta], "w"))
    assert not torch.equal(found, how.of([delta], "other"))
    two = Sum((0.5, 0.5), "dare", 0.25).of([delta, delta], "w")
    assert set(two.unique().tolist()) == {0.0, 4.0, 8.0}


def test_a_sum_of_adapters(tmp_path: Path) -> None:
    """Of different methods and sites: what each changes, times its weight."""
    base = written("llama", tmp_path / "base")
    for name, spec, seed in (("a", "lora(q, v, r=2)", 1), ("b", "dora(q, r=3)", 2)):
        made = tuned(base, spec, tmp_path / name, seed)
        made.save_pretrained(tmp_path / f"{name}_merged", merge=True)
    line = ["merge", str(tmp_path / "a"), str(base), "-o", str(tmp_path / "out")]
    ok(*line, "--also", str(tmp_path / "b"), "--weights", "0.7,0.4")
    plain, found = state(base), state(tmp_path / "out")
    one, two = (state(tmp_path / f"{name}_merged") for name in "ab")
    for name, value in plain.items():
        wanted = value + 0.7 * (one[name] - value) + 0.4 * (two[name] - value)
        torch.testing.assert_close(found[name], wanted, rtol=1e-5, atol=1e-7)
    ids = tokens()
    with torch.no_grad():
        AutoModelForCausalLM.from_pretrained(tmp_path / "out")(ids)


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--weights", "1,2"], "2 weights for 1 adapters"),
        (["--weights", "one"], "`one` are no numbers"),
        (["--way", "tise"], "did you mean `ties`?"),
        (["--way", "ties", "--density", "0"], "a density of 0"),
        (["--untie", "--in-memory"], "works on files"),
    ],
)
def test_sums_that_mean_nothing(more: list[str], problem: str, tmp_path: Path) -> None:
    base = written("llama", tmp_path / "base")
    tuned(base, "lora(q, r=2)", tmp_path / "a")
    told = command(
        "merge", str(tmp_path / "a"), str(base), "-o", str(tmp_path / "out"), *more
    )
    assert told.exit_code == 2
    assert "PEFT740" in told.stderr
    assert problem in told.stderr


# --- files that are named otherwise ---------------------------------------------------


def test_experts_that_are_stacked_while_loading(tmp_path: Path) -> None:
    """Each expert has files of its own there, and the model one tensor for all."""
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    base = tmp_path / "base"
    MixtralForCausalLM(config).save_pretrained(base)
    made = tuned(base, "lora(q, v, r=2)", tmp_path / "a")
    line = ("merge", str(tmp_path / "a"), str(base), "-o", str(tmp_path / "out"))
    told = command(*line)
    assert told.exit_code == 3
    assert "PEFT741" in told.stderr
    assert "--in-memory" in told.stderr
    ok(*line, "--in-memory")
    plain = load(tmp_path / "out").model
    assert relative(logits(plain), logits(made)) < 1e-5


def test_a_body_without_its_head(tmp_path: Path) -> None:
    """A checkpoint of the model inside names its tensors without the model's start."""
    base = tmp_path / "base"
    whole = model("llama", tie_word_embeddings=True)
    whole.model.save_pretrained(base)
    said = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(
        json.dumps({**said, "architectures": ["LlamaForCausalLM"]})
    )
    made = tuned(base, "lora(q, r=2)", tmp_path / "a")
    ok("merge", str(tmp_path / "a"), str(base), "-o", str(tmp_path / "out"))
    assert "layers.0.self_attn.q_proj.weight" in state(tmp_path / "out")
    plain = load(tmp_path / "out").model
    assert relative(logits(plain), logits(made)) < 1e-5


# --- memory ---------------------------------------------------------------------------


class Watch:
    """The most anonymous memory that the process has while something runs, in bytes."""

    def __enter__(self) -> Self:
        self.start, self.most, self.over = self._now(), 0, False
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def _look(self) -> None:
        while not self.over:
            self.most = max(self.most, self._now() - self.start)

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.thread.join()

    @staticmethod
    def _now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        said = next(line for line in lines if line.startswith("RssAnon"))
        return int(said.split()[1]) * 1024


def test_a_model_is_never_in_memory_whole(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=24,
        num_attention_heads=4,
    )
    base = tmp_path / "base"
    made = LlamaForCausalLM(config)
    made.save_pretrained(base, max_shard_size="60MB")
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    compiled: Any = peftc.compile(made, "lora(linear, r=2)")
    compiled.peftc.save(tmp_path / "adapter")
    adapter = read_adapter(tmp_path / "adapter")
    del made, compiled
    (tmp_path / "out").mkdir()
    with Watch() as watch:
        merge_folder([adapter], base, tmp_path / "out", ALONE, Choices())
    assert watch.most < size / 5, (watch.most, size)
    assert len(state(tmp_path / "out")) == len(state(base))
