"""The formats of stored weights as data: what they keep and what it takes."""

from __future__ import annotations

import pytest

from peftc.storage.table import FORMATS, form_of

FORMS = (
    "nf4(block=64, double=false, compute=base)",
    "nf4(block=64, double=true, compute=bfloat16)",
    "fp4(block=128, double=true, compute=base)",
    "int8(compute=float16)",
    "int4(group=128, symmetric=true, compute=base)",
    "int4(group=32, symmetric=false, compute=float32)",
)


@pytest.mark.parametrize("text", FORMS)
def test_a_form_reads_back(text: str) -> None:
    assert form_of(text).text == text


def test_every_format_is_tried() -> None:
    assert {form_of(text).format.name for text in FORMS} == set(FORMATS)


@pytest.mark.parametrize(
    "text",
    [
        "nf4",
        "nf5(block=64, double=false, compute=base)",
        "nf4(block=0, double=false, compute=base)",
        "nf4(block=64, compute=base)",
        "nf4(block=64, double=1, compute=base)",
        "int8(compute=int8)",
    ],
)
def test_what_is_no_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="`"):
        form_of(text)


def test_bits_for_each_weight_are_those_of_the_formula() -> None:
    """methods.md 10: 4 + 32/64, and 4 + 8/64 + 32/(64 * 256) with both."""
    shape = (4096, 4096)
    single, double, *_ = (form_of(text).bits(shape) for text in FORMS)
    assert single == 4.5
    mean = 32 / (4096 * 4096)
    assert double == pytest.approx(4 + 0.126953125 + mean, abs=1e-9)
    assert form_of("int8(compute=base)").bits(shape) == 8 + 32 / 4096
    assert form_of(FORMS[4]).bits(shape) == 4 + 32 / 128
    assert form_of(FORMS[5]).bits(shape) == 4 + 32 / 32 + 8 / 32


def test_a_tail_takes_a_block_of_its_own() -> None:
    parts = form_of(FORMS[0]).parts((7, 11))
    assert [(p.name, p.shape) for p in parts] == [("codes", (39,)), ("absmax", (2,))]
    parts = form_of("int4(group=4, symmetric=true, compute=base)").parts((3, 7, 11))
    assert [(p.name, p.shape) for p in parts] == [
        ("codes", (116,)),
        ("scale", (3, 7, 3)),
    ]
