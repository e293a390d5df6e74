"""`peftc verify`: promises tried on a spec or an adapter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.ecosystem.commands import CONFIG, TINY, ok, peftc

if TYPE_CHECKING:
    from pathlib import Path


def verdicts(text: str) -> dict[str, str]:
    record = json.loads(text)
    assert record["version"] == 1
    return {check["name"]: check["verdict"] for check in record["checks"]}


@pytest.mark.slow
def test_a_spec_on_random_weights() -> None:
    result = ok("verify", "lora(q, v, r=2)", CONFIG, "--random-init", "0", "--json")
    assert verdicts(result.stdout) == dict.fromkeys(
        ("identity", "gradients", "merging", "generation", "padding"), "ok"
    )


@pytest.mark.slow
def test_an_adapter(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    ok("compile", "adapter(ffn, d=2) @ layers(0)", TINY, "-o", out)
    shown = ok("verify", out, TINY).stdout
    assert "gradients" in shown
    assert "does not merge" in shown
    result = peftc("verify", out, CONFIG, "--random-init", "1")
    assert (result.exit_code, "PEFT625" in result.stderr) == (3, True)


def test_a_failure_has_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from peftc.runtime import verify

    def fails(trial: Any) -> verify.Check:
        return verify.Check("padding", "failed", 0.25, 1e-5, "left")

    monkeypatch.setattr(verify, "CHECKS", {"padding": fails})
    options = ("lora(q, r=2)", CONFIG, "--random-init", "0")
    result = peftc("verify", *options)
    assert result.exit_code == 4
    assert "PEFT664" in result.stderr
    assert "0.25" in result.stdout
    result = peftc("verify", *options, "--json")
    assert result.exit_code == 4
    assert verdicts(result.stdout) == {"padding": "failed"}


def test_a_bad_spec_is_told_before_the_model_is_read() -> None:
    result = peftc("verify", "lora(q", "/no/such/model")
    assert (result.exit_code, "PEFT104" in result.stderr) == (1, True)
