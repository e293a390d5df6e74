"""Options and fixtures of all tests."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="rewrite the golden files; read the difference before you commit it",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The models are tiny and workers share the cores: threads would wait for threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A capture makes many objects that live on: every pass over them all is wasted.
    gc.set_threshold(100_000, 50, 100)
    if config.getoption("--update-golden") and os.environ.get("CI"):
        raise pytest.UsageError("golden files are not rewritten where CI is set")


def pytest_collection_finish() -> None:
    """Leave what importing has made, torch above all, out of every collection."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Give it back: some libraries count at the end what they have left."""
    gc.unfreeze()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a golden file as a whole, or rewrite the file."""
    update = request.config.getoption("--update-golden")

    def compare(path: Path, text: str) -> None:
        if update:
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no {path}; run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def kept_views(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the view of equal models once in this process: see `tests/keeping.py`."""
    from tests.keeping import keep_views

    keep_views(monkeypatch)
