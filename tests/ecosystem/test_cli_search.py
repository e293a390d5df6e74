"""`peftc search`: trials, those without result, going on, the best spec."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from peftc.tuning import extras, fit
from tests.ecosystem.commands import ok, peftc
from tests.ecosystem.small import byte_llama, texts
from tests.ecosystem.test_cli_train import Interrupting

if TYPE_CHECKING:
    from pathlib import Path

SPACE = """
let r = one_of(1, 2)

one_of(lora(q, v, r=r), krona(q, a1=5))
"""
"""Three specs; 5 does not divide 32, so one of them does not compile."""
QUICK = ("--steps", "2", "--batch", "4", "--lr", "0.01")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return texts(tmp_path_factory.mktemp("data") / "texts.jsonl")


@pytest.fixture(scope="module")
def found(model: str, data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that nothing interrupted, through the whole space."""
    pytest.importorskip("optuna")
    folder = tmp_path_factory.mktemp("searches") / "whole"
    ok("search", SPACE, model, data, "-o", str(folder), "--trials", "9", *QUICK)
    return folder


def results(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "results.json").read_bytes())
    return read


def told(folder: Path) -> list[tuple[Any, ...]]:
    """What the trials of a search were and gave, but for the time they took."""
    names = ("number", "spec", "choices", "trainable", "value", "state", "reason")
    return [tuple(t[name] for name in names) for t in results(folder)["trials"]]


def test_a_search_tries_every_spec_once(found: Path, model: str, data: str) -> None:
    made = results(found)
    specs = [trial["spec"] for trial in made["trials"]]
    assert len(set(specs)) == len(specs) == 3
    values = [t["value"] for t in made["trials"] if t["value"] is not None]
    assert made["best"]["value"] == min(values)
    assert (found / "best.peft").read_text() == made["best"]["spec"]
    ok("check", str(found / "best.peft"))
    table = (found / "results.md").read_text()
    assert all(f"`{' '.join(spec.split())}`" in table for spec in specs)
    if extras.is_there("matplotlib"):
        assert (found / "trials.png").read_bytes().startswith(b"\x89PNG")


def test_what_does_not_compile_is_a_trial_without_result(found: Path) -> None:
    (refused,) = [t for t in results(found)["trials"] if "a1=5" in t["spec"]]
    assert refused["state"] == "pruned"
    assert refused["value"] is None
    assert "PEFT" in refused["reason"]
    assert refused["reason"].splitlines()[0] in (found / "results.md").read_text()


def test_an_interrupted_search_goes_on_as_if_it_was_not(
    found: Path,
    model: str,
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "found"
    command = ("search", SPACE, model, data, "-o", str(folder), *QUICK)
    ok(*command, "--trials", "2")
    with monkeypatch.context() as patch:
        patch.setattr(Interrupting, "at", 1)
        patch.setattr(fit, "Show", Interrupting)
        result = peftc(*command, "--trials", "9", "--resume")
    assert result.exit_code == 130, result.output
    ok(*command, "--trials", "3", "--resume")
    assert told(folder) == told(found)[:3]
    assert "PEFT679" in peftc(*command).stderr
    other = peftc(*command, "--resume", "--budget", "7")
    assert "budget was 0, is 7" in other.stderr


def test_a_search_without_result_is_an_error(
    model: str, data: str, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    command = ("search", "lora(q, r=one_of(8, 16))", model, data, "--trials", "9")
    result = peftc(*command, "-o", str(tmp_path / "found"), "--budget", "9")
    assert result.exit_code == 5
    assert "PEFT685" in result.stderr
    trials = results(tmp_path / "found")["trials"]
    assert [t["reason"] for t in trials] == ["over the budget of 9 parameters"] * 2


def test_what_cannot_be_searched_is_said(
    model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("-o", str(tmp_path / "found"))
    assert "PEFT683" in peftc("search", "lora(q)", model, data, *out).stderr
    command = ("search", SPACE, model, data, *out)
    assert "PEFT687" in peftc(*command, "--metric", "joy").stderr
    monkeypatch.setattr(extras, "is_there", lambda package: package != "optuna")
    result = peftc(*command)
    assert "PEFT671" in result.stderr
    assert "peftc[search]" in result.stderr
    assert not (tmp_path / "found").exists()
