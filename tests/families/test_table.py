"""docs/models.md says what the family tests hold true."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.families.cases import FAMILIES
from tests.families.table import page

if TYPE_CHECKING:
    from collections.abc import Callable

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.slow
def test_the_page_of_models(golden: Callable[[Path, str], None]) -> None:
    assert len(FAMILIES) >= 60
    golden(DOCS / "models.md", page())
