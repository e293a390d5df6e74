"""The formatter's output, as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from peftc.syntax.parse import parse, parse_spec
from peftc.syntax.print import format_file
from peftc.syntax.read import read_source
from tests.golden.case import FORMATS, cases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("path", cases(FORMATS), ids=lambda path: path.stem)
def test_fmt(path: Path, golden: Callable[[Path, str], None]) -> None:
    file = parse(read_source(path))
    text = format_file(file)
    golden(path.with_suffix(".out"), text)
    assert parse_spec(text) == file
    assert format_file(parse_spec(text)) == text
    assert text.count("#") == path.read_text(encoding="utf-8").count("#")
