"""The examples and benchmarks run; what they check can fail."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import intrinsic_prompts
import peftc
import quickstart
import serving_export
import train_tiny_llama
import with_trainer
import with_trl
from tests.ecosystem.commands import peftc as peftc_command

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "examples" / "specs").glob("*.peft"))
LIBRARIES = {"row_scaled"}

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quickstart, "STEPS", 12)
    monkeypatch.setattr(quickstart, "EVALUATED", 16)


@pytest.mark.usefixtures("kept_views")
@pytest.mark.parametrize(
    "path", [p for p in SPECS if p.stem not in LIBRARIES], ids=lambda p: p.stem
)
def test_a_spec_fits_the_example_model(path: Path) -> None:
    plan = peftc.plan(path, quickstart.BASE / "config.json")
    assert plan.trainable > 0


WRITTEN = {
    "lora": ("q_v",),
    "adapters": ("o", "ffn"),
    "quickstart": ("q_k_v", "o", "down", "up", "down", "head"),
    "prefix": (),
    "qlora": ("q_k_v", "o", "gate_up", "down"),
}
"""Specs, and their fused regions; sites at other places are apart."""


@pytest.mark.parametrize("name", list(WRITTEN))
def test_kernels_of_every_fused_region_are_written(name: str, tmp_path: Path) -> None:
    spec, base = SPECS[0].with_stem(name), str(quickstart.BASE)
    done = peftc_command("compile", str(spec), base, "-o", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "kernels"
    told = (folder / "kernels.txt").read_text(encoding="utf-8")
    names = [f"{i:02}_{roles}" for i, roles in enumerate(WRITTEN[name], 1)]
    ways = ("backward.py", "forward.py")
    files = [f"{one}_{way}" for one in names for way in ways]
    assert sorted(path.name for path in folder.iterdir()) == [*files, "kernels.txt"]
    assert told.count("\n  forward ") == told.count("\n  backward ") == len(names)
    assert "no kernels" not in told
    assert ("\napart\n" in told) == (name == "prefix")


@pytest.mark.usefixtures("short")
def test_the_quickstart_passes_its_own_checks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert quickstart.main() == 0
    printed = capsys.readouterr().out
    assert printed.count(" ok ") == 4
    assert "not merged" not in printed


@pytest.mark.usefixtures("short")
def test_the_quickstart_says_why_a_spec_does_not_merge(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (adapters,) = (path for path in SPECS if path.stem == "adapters")
    assert quickstart.main([str(adapters)]) == 0
    printed = capsys.readouterr().out
    assert "not merged: h passes through silu" in printed
    assert printed.count(" ok ") == 2


def test_the_quickstart_fails_if_a_loss_is_off() -> None:
    console = Console(quiet=True)
    assert quickstart.verdict(console, {"merged": (1.0, 1.0 + 1e-7)}) == 0
    assert quickstart.verdict(console, {"merged": (1.0, 1.001)}) == 1
    assert quickstart.verdict(console, {"merged": (float("nan"), 1.0)}) == 1


def test_a_model_can_be_trained_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    monkeypatch.setattr(train_tiny_llama, "FOLDER", folder)
    monkeypatch.setattr(train_tiny_llama, "STEPS", 4)
    train_tiny_llama.main()
    assert "2,067,648 weights, 4.1 MB" in capsys.readouterr().out
    names = {path.name for path in tmp_path.rglob("*")}
    shipped = {path.name for path in quickstart.BASE.iterdir()}
    assert names == shipped | {"model"}


def benchmark(name: str) -> Any:
    """A benchmark as a module."""
    path = ROOT / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its data classes look themselves up
    spec.loader.exec_module(module)
    return module


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [x for x in capsys.readouterr().out.splitlines() if x.startswith("|")]


def test_the_benchmark_of_storage() -> None:
    module = benchmark("bench_storage")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    found = module.measure("nf4, double", **sizes, **heads)
    assert found["held"] == pytest.approx(found["planned"], rel=0.01)
    assert module.row("nf4", found).startswith("| nf4 |")


def test_the_benchmark_of_plans(capsys: pytest.CaptureFixture[str]) -> None:
    module = benchmark("bench_plan")
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    module.CASES = {
        "small": module.Case(lambda: module.llama(**sizes, num_attention_heads=8)),
    }
    assert module.plan("small")
    assert len(printed(capsys)) == 1


def test_the_benchmark_of_checkpointed_blocks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = benchmark("bench_checkpoint")
    module.SIZES |= {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    module.BATCH, module.TOKENS, module.STEPS = 4, 128, 1
    assert module.main(["--backends", "eager"]) == 0
    kept = [float(line.split("|")[3]) for line in printed(capsys)[2:]]
    assert kept[2] == kept[3] < kept[1] < kept[0]
    module.INTERVALS, compiled = (0, 1), module.compiled

    def altered(backend: str, interval: int, **sizes: int) -> Any:
        model = compiled(backend, interval, **sizes)
        for parameter in model.peftc.parameters_by_method()["lora"].values():
            parameter.data.mul_(1 + interval)
        return model

    module.compiled = altered
    assert module.main(["--backends", "eager"]) == 1


def in_this_process(arguments: tuple[str, ...]) -> tuple[int, str]:
    done = peftc_command(*arguments)
    return done.exit_code, done.stderr


def test_the_comparison_of_methods(tmp_path: Path) -> None:
    module = benchmark("compare_methods")
    module.start, module.TRAINED, module.HELD_OUT = in_this_process, 8, 2
    specs = tmp_path / "specs"
    specs.mkdir()
    (specs / "good.peft").write_text("lora(q, r=2)\n")
    (specs / "wrong.peft").write_text("lora(q, r=2) + krona(q, a1=5)\n")
    (specs / "library.peft").write_text("spec s() = lora(q)\n")
    page = tmp_path / "page.md"
    places = {"specs": specs, "page": page, "runs": tmp_path / "runs"}
    command = [part for n, path in places.items() for part in (f"--{n}", str(path))]
    command += ["--steps", "2", "--rates", "1e-2"]
    assert module.main(command) == 1
    text = page.read_text()
    assert text.count("\n| [") == 1
    assert "| [good](../examples/specs/good.peft) | 3,840 |" in text
    assert "- `wrong` at rate 1e-2: error[PEFT301]" in text
    (specs / "wrong.peft").unlink()
    report = tmp_path / "runs" / "good-1e-2-2" / "report.json"
    before = report.stat().st_mtime_ns
    assert module.main(command) == 0
    assert report.stat().st_mtime_ns == before  # a finished run is not made again
    (specs / "good.peft").write_text("ia3(k)\n")
    assert module.main(command) == 0
    assert "| 320 |" in page.read_text()


def test_intrinsic_prompts_in_three_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(intrinsic_prompts, "STEPS", 8)
    monkeypatch.setattr(intrinsic_prompts, "EVALUATED", 8)
    assert intrinsic_prompts.main([str(tmp_path)]) == 0
    kept = {path.parent.name for path in tmp_path.rglob("adapter.safetensors")}
    assert kept == {"pirate", "recipe", "space", "drawn", "capitals"}
    assert "learnt decoder" in capsys.readouterr().out


def test_a_program_is_served_by_torch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving_export, "NEW", 4)
    assert serving_export.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(" ok") == len(serving_export.PROMPTS)
    assert [path.name for path in tmp_path.iterdir()] == ["program.pt2"]
    monkeypatch.setattr(serving_export, "serve", lambda _: [[65], [66]])
    assert serving_export.main([str(tmp_path)]) == 1


def test_trainer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(with_trainer, "STEPS", 8)
    assert with_trainer.main() == 0
    printed = capsys.readouterr().out
    assert "going on from checkpoint-2 ends with the same bits: True" in printed
    assert re.search(r"with 1\d\d KiB of weights", printed)  # the spec's path is in it
    monkeypatch.setattr(with_trainer, "STEPS", 4)
    monkeypatch.setattr(torch, "equal", lambda *_: False)
    assert with_trainer.main() == 1


def test_trl(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(with_trl, "STEPS", 6)
    assert with_trl.main() == 0
    assert capsys.readouterr().out.count("nats per byte likelier") == 3
    monkeypatch.setattr(with_trl, "liking", lambda _: 0.0)
    monkeypatch.setattr(with_trl, "texts", lambda *_: None)
    monkeypatch.setattr(with_trl, "preferences", lambda *_: None)
    assert with_trl.main() == 1


def test_bytes_as_a_tokenizer_of_trl() -> None:
    text = "Log o' the sea: ä\n"
    made = with_trl.tokenizer()
    assert made(text).input_ids == [*text.encode()]
    assert made.decode([*text.encode()]) == text
