"""The Python in documents runs, block after block, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOCUMENTS = ("adapters.md",)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_a_document_shows_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (ROOT / "docs" / name).read_text()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    blocks, names = BLOCK.findall(text), {"__name__": name}
    assert len(blocks) > 1
    for block in blocks:
        exec(compile(block, name, "exec"), names)
