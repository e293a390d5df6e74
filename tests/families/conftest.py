"""What all tests of families share."""

from __future__ import annotations

import pytest

from peftc.rewrite import recomputed


@pytest.fixture(autouse=True)
def find_views_once(kept_views: None) -> None:
    """Capturing is what takes time, and most tests compile a model like another."""


@pytest.fixture(autouse=True)
def keep_nothing_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of tests are smaller than those for which less is kept."""
    monkeypatch.setattr(recomputed, "LEAST", 0)
