"""Where layers begin, for every way in which models repeat their sublayers."""

from __future__ import annotations

import pytest

from peftc.sites.layers import layer_numbers


@pytest.mark.parametrize(
    ("kinds", "wanted"),
    [
        ("sfsf", "0011"),
        ("ss", "01"),
        ("sxfsxf", "000111"),
        ("sxfsfsxf", "00011222"),
        ("xfsfsf", "001122"),
        ("xsfxsf", "000111"),
        ("ssfssf", "000111"),
        ("fscffscf", "00001111"),
        ("fsfsfs", "001122"),
        ("fsfsf", "00011"),
        ("cfcfsf", "001122"),
        ("cccs", "0123"),
        ("ccsfcsf", "0122344"),
        ("csfsf", ".0011"),
        ("scsc", "0123"),
        ("cccscscs", "01234567"),
        ("fff", "000"),
        ("", ""),
    ],
)
def test_layers(kinds: str, wanted: str) -> None:
    told = layer_numbers(kinds)
    assert "".join("." if n is None else str(n) for n in told) == wanted
