"""What all tests of families share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def find_views_once(kept_views: None) -> None:
    """Capturing is what takes time, and most tests compile a model like another."""
