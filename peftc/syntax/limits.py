"""How large, deep and long a text may be: it comes from a stranger.

All are checked on the text or its tokens, before any tree is built, except the depth of
operations, which brackets do not show; that is checked on the tree without recursion.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from peftc.diagnostics.syntax import NotText, NumberTooLong, TooLarge
from peftc.syntax.source import Span

if TYPE_CHECKING:
    from peftc.diagnostics.core import Diagnostic
    from peftc.syntax.build import Lexeme
    from peftc.syntax.source import Source

MAX_CHARACTERS = 256 * 1024
MAX_TOKENS = 64 * 1024
MAX_BRACKETS = 64
MAX_OPERATIONS = 100
MAX_DIGITS = 18
MAX_ERRORS = 20


def too_large(source: Source) -> Diagnostic | None:
    """What is wrong with the text as a whole, found without reading it."""
    if len(source.text) <= MAX_CHARACTERS:
        return None
    place = Span(source, MAX_CHARACTERS, MAX_CHARACTERS)
    return TooLarge(span=place, limit=MAX_CHARACTERS, unit="characters")


def not_text(source: Source) -> Diagnostic | None:
    """A zero character: no text has one."""
    at = source.text.find("\0")
    if at < 0:
        return None
    return NotText(span=Span(source, at, at + 1), problem="a zero character")


def bad_number(token: Lexeme) -> Diagnostic | None:
    """A number that is too long or not finite; zeros in front do not count."""
    mantissa, *exponent = re.split("[eE]", token.rstrip("%"))
    digits = mantissa.replace(".", "").lstrip("0")
    if max(len(digits), *map(len, exponent), 0) > MAX_DIGITS:
        problem = f"more than {MAX_DIGITS} digits"
    elif not math.isfinite(float(token.rstrip("%"))):
        problem = "larger than any number"
    else:
        return None
    return NumberTooLong(span=token.span, problem=problem)
