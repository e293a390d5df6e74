"""`peftc doctor`: what is here and works."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from tests.ecosystem.commands import ok, peftc


@pytest.mark.slow
def test_this_environment_is_well() -> None:
    found = json.loads(ok("doctor", "--json").stdout)
    assert found["version"] == 1
    states = {one["name"]: one["state"] for one in found["findings"]}
    assert {"python", "torch", "transformers", "cpu", "c++"} <= states.keys()
    assert states["eager"] == states["aot_eager"] == "ok"
    assert states["triton"] == "ok" or not torch.cuda.is_available()
    assert "failed" not in states.values()


def test_what_does_not_work_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no code can be made here\nbut that is not all")

    monkeypatch.setattr("peftc.api.compile_model", broken)
    monkeypatch.setattr("peftc.runtime.environment.NEEDED", ("torch", "no-such-thing"))
    result = peftc("doctor")
    assert result.exit_code == 5
    assert "PEFT668" in result.stderr
    assert "no-such-thing" in result.stdout
    assert "no code can be made here" in result.stdout
    assert peftc("doctor", "--json").exit_code == 5
