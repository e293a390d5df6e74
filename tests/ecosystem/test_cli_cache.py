"""`peftc cache`: the generated kernels on disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from peftc.rewrite.module_cache import FOLDER, stored
from tests.ecosystem.commands import ok, peftc

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    stored("# joint y(x[*, 4])\n", tmp_path)
    return tmp_path


def test_modules_are_listed(where: Path) -> None:
    found = json.loads(ok("cache", "--json").stdout)
    assert found["folder"] == str(where)
    assert [one["title"] for one in found["modules"]] == ["joint y(x[*, 4])"]
    assert "joint y(x[*, 4])" in ok("cache", "list").stdout


def test_a_broken_module_is_found(where: Path) -> None:
    assert ok("cache", "verify", "--json").stdout.count('"whole"') == 0
    (where / "k0.py").write_text("cut off")
    result = peftc("cache", "verify", "--json")
    assert result.exit_code == 4
    assert [m["name"] for m in json.loads(result.stdout)["modules"]] == ["k0.py"]


def test_modules_are_removed(where: Path) -> None:
    assert "removed 1 modules" in ok("cache", "clear").stderr
    assert [*where.iterdir()] == []
