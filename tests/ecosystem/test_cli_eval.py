"""`peftc eval` and `peftc generate` with what `peftc train` made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.sites.load import load
from tests.ecosystem.commands import ok, peftc
from tests.ecosystem.small import byte_llama, byte_t5, lines, moods, sums

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = "yes"
LEARNING = ("--steps", "80", "--batch", "2", "--lr", "0.03", "--held-out", "0")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("data") / "q.jsonl"
    return lines(path, [{"prompt": p, "target": ANSWER} for p in ("is it?", "so?")])


@pytest.fixture(scope="module")
def run(model: str, questions: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An adapter that has learned to say yes."""
    folder = str(tmp_path_factory.mktemp("runs") / "yes")
    ok("train", "lora(linear, head, r=4)", model, questions, "-o", folder, *LEARNING)
    return folder


def measured(*args: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(ok("eval", *args, "--json").stdout)
    return read


def test_an_exact_answer_is_what_greedy_generation_writes(
    model: str, questions: str, run: str
) -> None:
    base = measured(model, questions)
    assert base["exact"] == 0
    tuned = measured(model, questions, "--adapter", run)
    assert (tuned["exact"], tuned["accuracy"], tuned["samples"]) == (1, 1, 2)
    assert tuned["targets"] == 2 * (len(ANSWER) + 1)
    made = ok("generate", model, "--prompts", questions, "--adapter", run, "--json")
    rows = json.loads(made.stdout)["completions"]
    assert [row["completion"] for row in rows] == [ANSWER] * 2
    assert ok("generate", model, "so?", "--adapter", run).stdout == f"so?{ANSWER}\n"


def test_the_loss_is_that_of_the_model(model: str, tmp_path: Path) -> None:
    text = "a text that is measured"
    found = measured(model, lines(tmp_path / "t.jsonl", [{"text": text}]))
    ids = torch.tensor([[256, *text.encode(), 257]])
    with torch.no_grad():
        expected = load(model).model(input_ids=ids, labels=ids).loss.item()
    assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert found["targets"] == len(text) + 1
    assert found["perplexity"] == pytest.approx(torch.tensor(expected).exp().item())


def test_batches_do_not_change_what_is_measured(model: str, tmp_path: Path) -> None:
    data = sums(tmp_path / "s.jsonl")
    one, many = (measured(model, data, "--batch", n) for n in ("1", "7"))
    assert many["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert (one["samples"], one["targets"]) == (many["samples"], many["targets"])


def test_classes_are_those_of_the_run(model: str, tmp_path: Path) -> None:
    data, folder = moods(tmp_path / "m.jsonl"), str(tmp_path / "run")
    spec = "lora(q, v) + full(head)"
    ok("train", spec, model, data, "-o", folder, "--steps", "2", "--eval", data)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    rows = [{"text": "x" * n, "label": "odd"} for n in (1, 2)]
    subset = lines(tmp_path / "odd.jsonl", rows)  # its labels alone would be one class
    found = measured(model, subset, "--adapter", folder)
    assert found["task"] == "classification"
    again = measured(model, data, "--adapter", folder)
    assert again["loss"] == pytest.approx(report["held_out"]["tuned"]["loss"])


def test_an_encoder_decoder_is_measured_and_answers(tmp_path: Path) -> None:
    model, data = byte_t5(tmp_path / "t5"), sums(tmp_path / "s.jsonl")
    assert measured(model, data)["task"] == "seq2seq"
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("1+1=\n\n2+1=\n")
    made = ok("generate", model, "--prompts", str(prompts), "--tokens", "3")
    assert [line[:4] for line in made.stdout.splitlines() if "+1=" in line] == [
        "1+1=",
        "2+1=",
    ]


def test_what_cannot_be_measured_is_said(model: str, tmp_path: Path) -> None:
    result = peftc("eval", model, str(tmp_path / "no.jsonl"))
    assert "PEFT672" in result.stderr
    for arguments in ((), ("a", "--prompts", "b")):
        assert "PEFT687" in peftc("generate", model, *arguments).stderr
    empty = tmp_path / "empty.txt"
    empty.write_text("\n")
    result = peftc("generate", model, "--prompts", str(empty))
    assert "PEFT674" in result.stderr
    wrong = lines(tmp_path / "w.jsonl", [{"question": "a"}])
    assert "PEFT673" in peftc("generate", model, "--prompts", wrong).stderr
