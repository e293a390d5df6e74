"""The corpus of the example model: the same for a seed, in two parts that are apart."""

from __future__ import annotations

import re
from itertools import islice

import pytest

from bytes_text import BOS, EOS, decode, encode
from corpus import documents, is_held_out
from grammar_of_corpus import STYLES

SEEN = 400


def some(style: str, seed: int = 0, *, held_out: bool = False) -> list[str]:
    return list(islice(documents(style, seed, held_out=held_out), SEEN))


@pytest.mark.parametrize("style", STYLES)
def test_a_seed_gives_the_same_text_again(style: str) -> None:
    assert some(style) == some(style)
    assert some(style) != some(style, seed=1)


@pytest.mark.parametrize("style", STYLES)
def test_no_held_out_document_is_trained_on(style: str) -> None:
    assert not set(some(style)) & set(some(style, held_out=True))
    assert all(map(is_held_out, some(style, held_out=True)))


@pytest.mark.parametrize("style", STYLES)
def test_every_slot_is_filled(style: str) -> None:
    left = [text for text in some(style) if re.search(r"[{}|]", text)]
    assert left == []


def test_what_the_text_claims_is_true() -> None:
    sums = re.findall(r"(\d+) \+ (\d+) = (\d+)", " ".join(some("plain")))
    assert len(sums) > 5
    assert all(int(a) + int(b) == int(c) for a, b, c in sums)


def test_bytes_come_back() -> None:
    text = "naïve? yes"
    ids = encode(text, closed=True)
    assert (ids[0], ids[-1]) == (BOS, EOS)
    assert decode(ids) == text
