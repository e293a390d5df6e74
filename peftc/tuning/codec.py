"""Text to tokens and back, with the tokenizer in the model's folder or as bytes.

In: the MODEL argument and the loaded model.  Out: `Codec`.  A model without tokenizer
whose vocabulary is the bytes and a few special tokens is taken as one of bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftc.diagnostics.cli import NoTokenizer
from peftc.diagnostics.core import fail
from peftc.diagnostics.tuning import TokensOutside

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BYTES = 256
MOST_SPECIAL = 64
"""A vocabulary of bytes has no more tokens beside them."""


@dataclass(frozen=True)
class Codec:
    """How a model reads and writes text.

    `begin` and `end` are the tokens around a text; `pad` fills batches up.
    """

    kind: str
    plain: Callable[[str], list[int]]
    text: Callable[[Sequence[int]], str]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    pad: int
    vocabulary: int

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, without those around it.

        Raises:
            PeftcError: PEFT676 for tokens that the model does not have.
        """
        found = self.plain(text)
        largest = max(found, default=0)
        if largest >= self.vocabulary:
            problem = f"token {largest}, of a vocabulary of {self.vocabulary}"
            raise fail(TokensOutside(problem=problem))
        return found


def codec_for(model: str, network: Any, *, as_bytes: bool = False) -> Codec:
    """The codec of a model.

    Raises:
        PeftcError: PEFT662 if it has no tokenizer, PEFT676 if bytes do not fit.
    """
    config = network.config.get_text_config()
    special = Special.of(config, int(network.get_input_embeddings().num_embeddings))
    if as_bytes:
        return _bytes(special)
    try:
        return _tokenizer(model, special)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if BYTES <= special.vocabulary <= BYTES + MOST_SPECIAL:
            return _bytes(special)
        reason = (str(error).splitlines() or ["it is unreadable"])[0]
        raise fail(NoTokenizer(problem=f"`{model}` has none: {reason}")) from None


@dataclass(frozen=True)
class Special:
    """What a configuration says of its vocabulary; -1 for what it does not."""

    begin: int
    end: int
    pad: int
    vocabulary: int

    @staticmethod
    def of(config: Any, vocabulary: int) -> Special:
        """The special tokens that the vocabulary really has."""

        def read(name: str) -> int:
            value = getattr(config, name, None)
            one = value[0] if isinstance(value, list) and value else value
            return one if isinstance(one, int) and 0 <= one < vocabulary else -1

        begin, end, pad = map(read, ("bos_token_id", "eos_token_id", "pad_token_id"))
        return Special(begin, end, pad, vocabulary)

    def padding(self) -> int:
        """What batches are filled with; it is masked, so that any token will do."""
        return next((t for t in (self.pad, self.end) if t >= 0), 0)


def _around(token: int) -> tuple[int, ...]:
    return (token,) if token >= 0 else ()


def _bytes(special: Special) -> Codec:
    if special.vocabulary < BYTES:
        problem = f"bytes need {BYTES} tokens, the model has {special.vocabulary}"
        raise fail(TokensOutside(problem=problem))

    def text(tokens: Sequence[int]) -> str:
        known = bytes(token for token in tokens if token < BYTES)
        return known.decode(errors="replace")

    around = _around(special.begin), _around(special.end)
    pad, size = special.padding(), special.vocabulary
    return Codec("bytes", lambda t: list(t.encode()), text, *around, pad, size)


def _tokenizer(model: str, special: Special) -> Codec:
    from transformers import AutoTokenizer

    place = Path(model)
    folder = place.parent if place.is_file() else place
    found: Any = AutoTokenizer.from_pretrained(str(folder))

    def plain(text: str) -> list[int]:
        tokens: list[int] = found(text, add_special_tokens=False).input_ids
        return tokens

    def text(tokens: Sequence[int]) -> str:
        return str(found.decode(list(tokens), skip_special_tokens=True))

    begin, end = _surroundings(found(PROBE).input_ids, plain(PROBE))
    end = end or _around(found.eos_token_id if found.eos_token_id is not None else -1)
    own = found.pad_token_id
    pad = special.padding() if own is None else int(own)
    return Codec("tokenizer", plain, text, begin, end, pad, special.vocabulary)


PROBE = "a text"


def _surroundings(
    whole: list[int], inner: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a tokenizer sets before and behind a text."""
    for at in range(len(whole) - len(inner) + 1):
        if whole[at : at + len(inner)] == inner:
            return tuple(whole[:at]), tuple(whole[at + len(inner) :])
    return (), ()
