"""Words and signs of a text.

In: a source.  Out: its tokens, its comments, and an error for every character that
begins none of them; the token `ERROR` stands in such places.  Words that are keywords
only in company (`loss +=`, `train mask(`, `shared param`, `sum[k: n]`) are told apart
here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from lark.lexer import PatternStr

from peftc.diagnostics.syntax import TooLarge, UnexpectedCharacter, UnterminatedString
from peftc.syntax.build import Lexeme
from peftc.syntax.grammar import grammar
from peftc.syntax.limits import MAX_ERRORS, MAX_TOKENS, bad_number
from peftc.syntax.source import Source, Span

if TYPE_CHECKING:
    from peftc.diagnostics.core import Diagnostic

INSTEAD = dict.fromkeys(
    "\u201c\u201d\u201e\u00ab\u00bb'`", 'a text stands in `"` quotes'
)
INSTEAD |= dict.fromkeys("\u2212\u2013\u2014", "write `-`")
INSTEAD |= dict.fromkeys("\u00d7\u00b7", "write `*`")
INSTEAD |= {".": "write `0.5`, not `.5`; a range is `0..11`", "%": "write `5%`"}
"""What is meant by characters of other keyboards, and by some that stand alone."""

BINDERS = ("sum", "mean", "prod", "blockdiag", "blockgrid", "concat", "concat_cols")

OPENING = {"LPAR": "RPAR", "OPEN": "RPAR", "LSQB": "RSQB", "LBRACE": "RBRACE"}
CLOSING = frozenset(OPENING.values())


@dataclass
class Scan:
    """What was found in a text, in order."""

    source: Source
    tokens: list[Lexeme] = field(default_factory=list)
    comments: list[Lexeme] = field(default_factory=list)
    errors: list[Diagnostic] = field(default_factory=list)

    def take(self, kind: str, start: int, end: int) -> None:
        """File a match under its kind."""
        if kind == "SPACE":
            return
        token = Lexeme.at(kind, self.source, start, end)
        (self.comments if kind == "COMMENT" else self.tokens).append(token)
        if kind == "NUMBER" and (error := bad_number(token)):
            self.reject(error, start, end)

    def reject(self, error: Diagnostic, start: int, end: int) -> None:
        """Note an error and mark its place among the tokens."""
        self.errors.append(error)
        self.tokens.append(Lexeme.at("ERROR", self.source, start, end))

    @property
    def full(self) -> bool:
        """Whether enough was found to stop."""
        return len(self.tokens) > MAX_TOKENS or len(self.errors) >= MAX_ERRORS


@cache
def keywords() -> dict[str, str]:
    """The reserved words and the kinds of their tokens, from the grammar."""
    fixed = [t for t in grammar().terminals if isinstance(t.pattern, PatternStr)]
    return {t.pattern.value: t.name for t in fixed if t.pattern.value.isalpha()}


@cache
def _pattern() -> re.Pattern[str]:
    """One pattern of all terminals but the keywords, the most particular first."""
    reserved = set(keywords().values())
    rest = [t for t in grammar().terminals if t.name not in reserved]
    rest.sort(key=lambda t: (-t.priority, -len(t.pattern.value)))
    return re.compile("|".join(f"(?P<{t.name}>{t.pattern.to_regexp()})" for t in rest))


def scan(source: Source) -> Scan:
    """The tokens of a text; `errors` ends with `TooLarge` if there are too many."""
    found = Scan(source)
    match, words, text = _pattern().match, keywords(), source.text
    at = 0
    while at < len(text) and not found.full:
        if hit := match(text, at):
            kind = hit.lastgroup or ""
            kind = words.get(hit.group(), kind) if kind == "NAME" else kind
            found.take(kind, at, hit.end())
            at = hit.end()
        else:
            at = _reject(found, at)
    if len(found.tokens) > MAX_TOKENS:
        limit = TooLarge(span=found.tokens[-1].span, limit=MAX_TOKENS, unit="words")
        found.errors.append(limit)
    _tell_apart(found.tokens)
    return found


def _reject(found: Scan, at: int) -> int:
    """Report what cannot be read at an offset; the offset to go on from."""
    text = found.source.text
    if text[at] == '"':
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        error: Diagnostic = UnterminatedString(span=Span(found.source, at, end))
    else:
        end = at + 1
        while end < len(text) and text[end] == text[at]:
            end += 1
        error = UnexpectedCharacter(
            span=Span(found.source, at, end),
            shown=_shown(text[at]),
            hint=INSTEAD.get(text[at], ""),
        )
    found.reject(error, at, end)
    return end


def _shown(char: str) -> str:
    return f"`{char}`" if char.isprintable() else f"U+{ord(char):04X}"


# --- words that are keywords by what follows -----------------------------------------


def first_on_line(tokens: list[Lexeme], index: int) -> bool:
    """Whether only blanks and comments precede a token on its line."""
    if not index:
        return True
    before, token = tokens[index - 1], tokens[index]
    return "\n" in token.source.text[before.end : token.start]


def _tell_apart(tokens: list[Lexeme]) -> None:
    """Retype words such as `loss`, binders, and parentheses that begin an item."""
    depth = 0
    for index, token in enumerate(tokens):
        if token.type in OPENING:
            if token == "(" and not depth and first_on_line(tokens, index):
                token.type = "OPEN"
            depth += 1
        elif token.type in CLOSING:
            depth = max(0, depth - 1)
        elif token.type == "NAME":
            token.type = _kind_of_name(
                token, [t.type for t in tokens[index + 1 : index + 4]]
            )


def _kind_of_name(token: Lexeme, following: list[str]) -> str:
    if token == "loss" and following[:1] == ["MOREEQUAL"]:
        return "LOSS"
    if token == "train" and following[:2] == ["NAME", "LPAR"]:
        return "TRAIN"
    if token == "network" and following[:2] == ["NAME", "LPAR"]:
        return "NETWORK"
    if token == "shared" and following[:1] in (["PARAM"], ["BUFFER"]):
        return "SHARED"
    if token == "store" and following[:2] == ["NAME", "TILDE"]:
        return "STORE"
    if following == ["LSQB", "NAME", "COLON"]:
        return "BINDER"
    return "NAME"
