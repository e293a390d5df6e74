"""Text as bytes: the whole tokenizer of the example model.

In: text.  Out: ids below 256, one per UTF-8 byte, and the three special ids above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BOS, EOS, PAD = 256, 257, 258
VOCABULARY = 259


def encode(text: str, *, closed: bool = False) -> list[int]:
    """`text` as ids after a BOS; `closed` adds the EOS that ends a document."""
    return [BOS, *text.encode(), *([EOS] if closed else [])]


def decode(ids: Iterable[int]) -> str:
    """The text of ids; special ids vanish, broken UTF-8 shows as U+FFFD."""
    return bytes(i for i in ids if i < BOS).decode(errors="replace")
