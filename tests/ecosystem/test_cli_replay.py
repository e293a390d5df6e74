"""`peftc replay`: a crash, its folder, and the same crash again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

import peftc as library
from peftc.diagnostics.core import PeftcError
from tests.ecosystem.commands import CONFIG, ok, peftc
from tests.models import llama

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = "lora(q, r=2)"

STAGES = [
    ("order-evaluation", "peftc.passes.order_evaluation.order", False),
    ("derive-merge", "peftc.passes.derive_merge.derive", False),
    *(
        pytest.param(*case, marks=pytest.mark.slow)
        for case in (
            ("front end", "peftc.driver.build", False),
            ("rewrite-linears", "peftc.passes.rewrite_linears.emit_together", True),
            ("memory", "peftc.runtime.memory.install", False),
        )
    ),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def broken(*args: Any, **kwargs: Any) -> Any:
    raise RuntimeError("it broke\nin two lines")


def _captured() -> None:
    library.compile(llama(), SPEC).peftc.graph()


def _planned() -> None:
    library.plan(SPEC, CONFIG)


def crash(folder: Path, runs: bool) -> Path:
    """Make peftc crash; the folder it leaves."""
    make = _captured if runs else _planned
    with pytest.raises(PeftcError, match="PEFT901"):
        make()
    (left,) = folder.glob("peftc-reproducer-*")
    return left


@pytest.mark.parametrize(("stage", "target", "runs"), STAGES)
def test_a_crash_is_seen_again_and_its_end_too(
    stage: str, target: str, runs: bool, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, broken)
        folder = crash(tmp_path, runs)
        facts = json.loads((folder / "facts.json").read_text())
        assert facts["stage"] == stage
        assert facts["command"] == f"peftc replay {folder.name}"
        result = peftc("replay", str(folder))
        assert result.exit_code == 70, result.output
        assert "PEFT669" in result.stderr
        assert "it broke" in result.stderr
    assert "does not fail any more" in ok("replay", str(folder)).stderr
    assert list(tmp_path.iterdir()) == [folder]


def test_another_failure_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = "peftc.passes.order_evaluation.order"
    monkeypatch.setattr(target, broken)
    folder = crash(tmp_path, runs=False)

    def otherwise(*args: Any, **kwargs: Any) -> Any:
        raise KeyError("q")

    monkeypatch.setattr(target, otherwise)
    result = peftc("replay", str(folder))
    assert result.exit_code == 4
    assert "PEFT670" in result.stderr
    assert "KeyError" in result.stderr


def spoil(name: str, text: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        if text is not None:
            (folder / name).write_text(text)

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (spoil("facts.json", None), "PEFT667"),
        (spoil("facts.json", "[" * 10_000), "PEFT667"),
        (spoil("facts.json", '{"stage": "merge", "error": ""}'), "PEFT667"),
        (spoil("facts.json", '{"stage": "derive-merge"}'), "PEFT667"),
        (spoil("plan.txt", None), "PEFT667"),
        (spoil("plan.txt", "peftc-plan 1\nseed x\n"), "PEFT306"),
    ],
)
def test_a_damaged_folder_is_a_diagnostic(
    change: Callable[[Path], None],
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peftc.passes.derive_merge.derive", broken)
    folder = crash(tmp_path, runs=False)
    change(folder)
    result = peftc("replay", str(folder))
    assert result.exit_code == (1 if code == "PEFT306" else 2), result.output
    assert code in result.stderr
