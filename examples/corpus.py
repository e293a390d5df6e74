"""Text for the example model, made from a grammar: always the same for a seed.

In: a style (`plain`, which the base model is trained on, `pirate` or `recipe`) and a
seed.  Out: short English documents.  A document belongs to the held-out part by a
checksum of its text, so the two parts never share one.
"""

from __future__ import annotations

import re
import zlib
from random import Random
from typing import TYPE_CHECKING

from grammar_of_corpus import STYLES, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOT = re.compile(r"\{(\w+)(?::(\w+))?(?:\.(\d))?\}")
FIRST = re.compile(r'^"?[a-z]')
INNER_START = re.compile(r'(?:[.!?]\s+"?|: ")[a-z]')
HELD_OUT_SHARE = 20
"""One document in so many is held out."""


def documents(style: str, seed: int, *, held_out: bool = False) -> Iterator[str]:
    """Endless documents of one part of a style."""
    rng = Random(f"{style}/{seed}/{held_out}")
    while True:
        text = document(style, rng)
        if is_held_out(text) == held_out:
            yield text


def is_held_out(text: str) -> bool:
    """Whether a document may only be used to measure."""
    return zlib.crc32(text.encode()) % HELD_OUT_SHARE == 0


def document(style: str, rng: Random) -> str:
    """One document of a style, of either part."""
    return _polish(_expand(rng.choice(STYLES[style]), rng, _numbers(rng)))


def _expand(template: str, rng: Random, bound: dict[str, str]) -> str:
    """Fill `{list}`, `{name:list}` (drawn once), `{name}` and `{name.field}`."""

    def fill(slot: re.Match[str]) -> str:
        name, words, field = slot.groups()
        if name not in bound or words:
            value = _expand(rng.choice(WORDS[words or name]), rng, bound)
            if not words:
                return value.split("|")[int(field or 0)]
            bound[name] = value
        return bound[name].split("|")[int(field or 0)]

    return _begin(SLOT.sub(fill, template))


def _begin(text: str) -> str:
    """A sentence begins with a capital letter; other text is as it was."""
    is_sentence = text.endswith((".", "!", "?", '"'))
    return FIRST.sub(lambda m: m[0].upper(), text) if is_sentence else text


def _numbers(rng: Random) -> dict[str, str]:
    """Slots whose values must agree: a sum, a product, a row of numbers, a date."""
    a, b, small = rng.randint(2, 60), rng.randint(1, 39), rng.randint(2, 9)
    other, day = rng.randint(2, 9), rng.randint(1, 27)
    numbers = {
        **{"a": a, "b": b, "sum": a + b, "small": small, "other": other},
        **{"product": small * other, "day": day, "next_day": day + 1},
        **{"more": small + other, "year": rng.randint(1800, 1999)},
        "counting": ", ".join(str(a + step) for step in range(5)),
        "stairs": ", ".join(str(small * step) for step in range(1, 7)),
    }
    return {name: str(value) for name, value in numbers.items()}


def _polish(text: str) -> str:
    """Capital letters after full stops, `an` before vowels."""
    text = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)
    return INNER_START.sub(lambda m: m[0].upper(), text)
