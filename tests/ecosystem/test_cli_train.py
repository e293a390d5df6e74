"""`peftc train`: what it writes, how it goes on, what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc as package
from peftc.diagnostics.core import PeftcError
from peftc.sites.load import load
from peftc.tuning import extras, fit, records
from peftc.tuning.progress import Show
from peftc.tuning.records import read_data
from tests.ecosystem.commands import ROOT, ok, peftc
from tests.ecosystem.small import byte_llama, byte_t5, lines, moods, sums, texts

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

pytestmark = pytest.mark.usefixtures("kept_views")

SPEC = """
method noisy(r: size = 2) on linear {
  param A[r, in] ~ kaiming(5), B[out, r] = 0
  buffer e[r] = 1
  W' = W + B @ diag(training(e, 1)) @ A
  loss += 0.1 * norm2(A @ A.T - eye(r))
  train redraw(e, low=0.5, high=1.5)
}

lora(q, v, r=2, dropout=0.1) + noisy(k)
"""
"""Everything that could differ after an interruption: dropout, noise, a loss term."""
STEPS = ("--steps", "12", "--batch", "4", "--lr", "0.01", "--save-every", "3")
HALF = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return texts(tmp_path_factory.mktemp("data") / "texts.jsonl")


@pytest.fixture(scope="module")
def whole(
    model: str, data: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    return folder, ok("train", SPEC, model, data, "-o", str(folder), *STEPS)


def adapter(folder: Path) -> bytes:
    return (folder / "adapter.safetensors").read_bytes()


def report(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "report.json").read_bytes())
    return read


def test_a_run_leaves_adapter_report_and_picture(
    whole: tuple[Path, Result], model: str
) -> None:
    folder, result = whole
    names = {path.name for path in folder.iterdir()}
    written = {"adapter.safetensors", "run.json", "report.json", "report.md"}
    assert names - {"loss.png"} == {*written, "checkpoints"}
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == ["step-12", "step-9"]
    told = report(folder)
    assert len(told["losses"]) == told["training"]["steps"] == 12
    assert told["counts"]["trainable"] == 2 * (64 + 48 + 48)
    assert told["held_out"]["base"]["samples"] == 2
    assert told["held_out"]["tuned"]["loss"] < told["held_out"]["base"]["loss"]
    assert told["memory"]["resident"] > 2**20
    assert told["versions"]["torch"] == torch.__version__
    assert (
        "lora(q, v, r=2, dropout=0.1) + noisy(k)" in (folder / "report.md").read_text()
    )
    assert "step 12/12  loss" in result.stderr
    assert "tokens/s" in result.stderr
    assert "left" in result.stderr
    assert "2 held-out samples" in result.stdout
    package.load(load(model).model, folder)


def test_the_picture_is_drawn(whole: tuple[Path, Result]) -> None:
    pytest.importorskip("matplotlib")
    assert (whole[0] / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert report(whole[0])["picture"] == "loss.png"


WAITING = """
import sys
from peftc.cli.main import main
from peftc.tuning import fit

class Wait(fit.Show):
    def on_step_begin(self, args, state, control, **_):
        if state.global_step == {half}:
            print("waiting", file=sys.stderr, flush=True)
            sys.stdin.readline()

fit.Show = Wait
main()
"""


@pytest.mark.slow
def test_a_process_that_is_terminated_goes_on_to_the_same_bits(
    whole: tuple[Path, Result], model: str, data: str, tmp_path: Path
) -> None:
    command = ["train", SPEC, model, data, "-o", str(tmp_path / "run"), *STEPS]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(half=HALF - 1), *command],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stderr
    for line in process.stderr:
        if line == "waiting\n":
            process.send_signal(signal.SIGTERM)
            break
    _, told = process.communicate("\n", timeout=120)
    assert process.returncode == 130, told
    assert f"interrupted at step {HALF} of 12; `--resume` goes on from" in told
    assert not (tmp_path / "run" / "adapter.safetensors").exists()
    ok(*command, "--resume")
    assert adapter(tmp_path / "run") == adapter(whole[0])
    assert report(tmp_path / "run")["losses"] == report(whole[0])["losses"]


class Interrupting(Show):
    """Presses Ctrl-C in a step, and perhaps again."""

    presses = 1
    at = HALF + 1

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == self.at:
            for _ in range(self.presses):
                os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_keeps_a_whole_checkpoint(
    whole: tuple[Path, Result],
    model: str,
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    presses: int,
) -> None:
    command = ("train", SPEC, model, data, "-o", str(tmp_path / "run"), *STEPS)
    with monkeypatch.context() as patch:
        patch.setattr(Interrupting, "presses", presses)
        patch.setattr(fit, "Show", Interrupting)
        result = peftc(*command)
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    checkpoints = tmp_path / "run" / "checkpoints"
    found = sorted(path.name for path in checkpoints.iterdir())
    assert found == (["step-6", "step-8"] if presses == 1 else ["step-3", "step-6"])
    # What a run that was killed while it wrote leaves is never taken.
    (checkpoints / "checkpoint-11").mkdir()
    (checkpoints / "checkpoint-11" / "optimizer.pt").write_bytes(b"half")
    ok(*command, "--resume")
    assert adapter(tmp_path / "run") == adapter(whole[0])
    assert not (checkpoints / "checkpoint-11").exists()


def test_a_finished_run_that_goes_on_is_the_same_run(
    whole: tuple[Path, Result], model: str, data: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole[0], folder)
    before = adapter(folder), report(folder)
    command = ("train", SPEC, model, data, "-o", str(folder), *STEPS, "--resume")
    assert "is finished" in ok(*command).stderr
    assert (adapter(folder), report(folder)) == before
    # Killed between its last checkpoint and its report.
    for name in ("adapter.safetensors", "report.json"):
        (folder / name).unlink()
    ok(*command)
    assert adapter(folder) == before[0]
    assert report(folder)["losses"] == before[1]["losses"]


def test_only_the_same_run_goes_on(
    whole: tuple[Path, Result], model: str, data: str, tmp_path: Path
) -> None:
    folder = str(whole[0])
    result = peftc("train", SPEC, model, data, "-o", folder, *STEPS)
    assert result.exit_code == 1
    assert "PEFT679" in result.stderr
    other = (*STEPS, "--seed", "1", "--resume")
    result = peftc("train", SPEC, model, data, "-o", folder, *other)
    assert "PEFT680" in result.stderr
    assert "seed was 0, is 1" in result.stderr
    result = peftc("train", SPEC, model, data, "-o", str(tmp_path / "no"), "--resume")
    assert "PEFT679" in result.stderr
    (tmp_path / "thesis.txt").write_text("years of work")
    for place in (tmp_path, tmp_path / "thesis.txt"):
        result = peftc("train", SPEC, model, data, "-o", str(place))
        assert "PEFT679" in result.stderr
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def short(*args: str) -> dict[str, Any]:
    """The report of a run of three steps."""
    result = ok("train", *args, "--steps", "3", "--batch", "4", "--json")
    read: dict[str, Any] = json.loads(result.stdout)
    return read


def test_answers_are_learned_and_prompts_are_not(model: str, tmp_path: Path) -> None:
    told = short(SPEC, model, sums(tmp_path / "s.jsonl"), "-o", str(tmp_path / "run"))
    assert told["task"] == "causal"
    held_out = told["held_out"]["base"]
    assert held_out["samples"] == 2
    assert 4 <= held_out["targets"] <= 6  # one or two digits and the end


def test_a_method_may_compile_the_model_anew_at_the_end(
    model: str, data: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "run")
    told = short("fishmask(linear, keep=10%)", model, data, "-o", out)
    args = ("--adapter", out, "--json")
    again = json.loads(ok("eval", model, data, *args).stdout)
    assert again["loss"] < told["held_out"]["base"]["loss"]


def test_sequences_to_sequences(tmp_path: Path) -> None:
    model = byte_t5(tmp_path / "t5")
    data = sums(tmp_path / "s.jsonl")
    told = short("lora(q, v, r=2)", model, data, "-o", str(tmp_path / "run"))
    assert told["task"] == "seq2seq"
    assert told["held_out"]["tuned"]["loss"] != told["held_out"]["base"]["loss"]


def test_classes(model: str, tmp_path: Path) -> None:
    data, out = moods(tmp_path / "m.jsonl"), str(tmp_path / "run")
    told = short("lora(q, v, r=2)", model, data, "-o", out, "--eval", data)
    assert told["task"] == "classification"
    assert told["classes"] == ["even", "odd"]
    assert told["counts"]["architecture"] == "LlamaForSequenceClassification"
    assert told["held_out"]["base"]["perplexity"] is None
    assert told["held_out"]["base"]["samples"] == 20


def test_a_text_is_cut_into_windows(model: str, tmp_path: Path) -> None:
    text = tmp_path / "plain.txt"
    text.write_text("one two three\n" * 40)
    told = short(SPEC, model, str(text), "-o", str(tmp_path / "run"))
    assert told["data"]["examples"] == -(-(14 * 37 + 2) // 64)


BAD: list[tuple[str, str, tuple[str, ...]]] = [
    ("PEFT672", "", ()),
    ("PEFT672", '{"text": "a"', ()),
    ("PEFT673", '{"question": "a", "answer": "b"}', ()),
    ("PEFT673", '{"text": 3}', ()),
    ("PEFT673", '{"text": ""}', ()),
    ("PEFT673", "[1]", ()),
    ("PEFT673", '{"text": "a"}\n{"prompt": "a", "target": "b"}', ()),
    ("PEFT673", '{"text": "a", "label": 0.5}', ()),
    ("PEFT674", "\n", ()),
    ("PEFT674", '{"text": "a"}', ()),
    ("PEFT675", json.dumps({"prompt": "a" * 99, "completion": "b"}), ()),
    ("PEFT677", '{"text": "a", "label": -1}', ()),
    ("PEFT678", '{"text": "a"}', ("--task", "seq2seq")),
    ("PEFT678", '{"text": "a"}', ("--task", "translate")),
    ("PEFT687", '{"text": "a"}', ("--steps", "1", "--epochs", "1")),
    ("PEFT687", '{"text": "a"}', ("--max-length", "65")),
    ("PEFT687", '{"text": "a"}', ("--held-out", "1.0")),
    ("PEFT687", '{"text": "a"}', ("--lr", "nan")),
]


@pytest.mark.parametrize(("code", "text", "options"), BAD)
def test_what_cannot_be_trained_is_said(
    code: str, text: str, options: tuple[str, ...], model: str, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    if text:
        data.write_text(text)
    keep = () if "--held-out" in options or code == "PEFT674" else ("--held-out", "0")
    command = ("train", SPEC, model, str(data), "-o", str(tmp_path / "run"))
    result = peftc(*command, *keep, *options)
    assert f"error[{code}]" in result.stderr, result.output
    assert result.exit_code != 0
    assert not (tmp_path / "run").exists()


def test_what_is_too_long_is_cut_on_request(model: str, tmp_path: Path) -> None:
    data = lines(tmp_path / "d.jsonl", [{"prompt": "a" * 99, "completion": "b"}])
    short(SPEC, model, data, "-o", str(tmp_path / "run"), "--truncate", "--eval", data)


def test_tokens_that_the_model_lacks(tmp_path: Path, data: str) -> None:
    large = byte_llama(tmp_path / "large", vocab_size=1000)
    small = byte_llama(
        tmp_path / "small", vocab_size=100, bos_token_id=1, pad_token_id=0
    )
    out = str(tmp_path / "run")
    assert "PEFT662" in peftc("train", SPEC, large, data, "-o", out).stderr
    result = peftc("train", SPEC, small, data, "-o", out, "--bytes")
    assert "PEFT676" in result.stderr


def test_a_missing_package_is_said(
    model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "is_there", lambda package: package != "accelerate")
    result = peftc("train", SPEC, model, data, "-o", str(tmp_path / "run"))
    assert result.exit_code == 5
    assert "PEFT671" in result.stderr
    assert "peftc[train]" in result.stderr


def test_a_loss_that_is_not_finite_stops(model: str, data: str, tmp_path: Path) -> None:
    command = ("train", "lora(q, v, r=2)", model, data, "-o", str(tmp_path / "run"))
    result = peftc(*command, "--lr", "1e30", "--steps", "9", "--save-every", "9")
    assert "PEFT688" in result.stderr, result.stderr
    assert result.exit_code == 5


def test_a_data_set_is_loaded_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        @staticmethod
        def load_dataset(name: str, split: str) -> list[dict[str, str]]:
            if name != "owner/sums":
                raise FileNotFoundError(f"no {name}")
            return [{"prompt": "1+1=", "target": "2"}] * (4 if split == "train" else 2)

    monkeypatch.setitem(sys.modules, "datasets", Fake)
    monkeypatch.setattr(extras, "is_there", lambda package: True)
    monkeypatch.setattr(records, "is_there", lambda package: True)
    assert len(read_data("owner/sums").records) == 4
    assert len(read_data("owner/sums", split="test").records) == 2
    with pytest.raises(PeftcError, match="PEFT672"):
        read_data("owner/other")
