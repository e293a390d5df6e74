"""What to say about a token that does not fit.

In: the tokens of a segment and the index of the one that was refused.  Out: one
diagnostic, in the user's words: what was found, what could stand there, and a guess at
the mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostic, suggestion
from peftc.diagnostics.syntax import ReservedWord, UnexpectedEnd, UnexpectedToken
from peftc.syntax.grammar import Start, begin, grammar
from peftc.syntax.source import Source, Span
from peftc.syntax.tokens import keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from peftc.syntax.build import Lexeme

OPERATORS = frozenset({"PLUS", "MINUS", "STAR", "SLASH", "AT"})
SUFFIXES = frozenset({"LPAR", "LSQB", "TRANSPOSE"})

GROUPS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "a statement",
        frozenset(
            {"NAME", "PRIMED", "PARAM", "BUFFER", "LOSS", "TRAIN", "SHARED", "STORE"}
        ),
    ),
    ("a new item", frozenset({"METHOD", "SPEC", "LET", "USE"})),
    ("", SUFFIXES),
    ("an operator", OPERATORS),
    ("an expression", frozenset({"NAME", "PATH", "NUMBER", "MINUS", "BINDER", "OPEN"})),
    ("a site or a spec", frozenset({"NAME", "PATH", "STRING", "OPEN"})),
    ("a method applied to sites", frozenset({"NAME", "OPEN"})),
)
"""Phrases for sets of tokens: a set that is allowed as a whole is named as one."""

ALONG = {
    "an expression": frozenset({"STRING", "LPAR", "LSQB"}),
    "a site or a spec": frozenset({"LPAR", "NUMBER"}),
    "a method applied to sites": frozenset({"LPAR"}),
    "a new item": frozenset({"NAME", "LPAR", "OPEN"}),
    "a statement": frozenset({"SEMICOLON"}),
}
"""What goes without saying beside a phrase."""

CONTINUING = frozenset({"LPAR", "LSQB", "TRANSPOSE", "EQUAL", "QUESTION", "DOTS"})
"""What is seldom meant where a list may also go on."""

FIRST = ("COMMA", "RPAR", "RSQB", "RBRACE")

SHOWN = 40  # characters of a word that are repeated in a message

KINDS = {
    "NAME": "a name",
    "PATH": "a dotted name",
    "NUMBER": "a number",
    "STRING": "a text in quotes",
    "PRIMED": "a rule",
    "$END": "the end",
}


def accepted(tokens: Iterable[Lexeme], start: Start) -> frozenset[str]:
    """The kinds of tokens that could follow these."""
    parser = begin(start)
    for token in tokens:
        parser.feed_token(token)
    accepts: Callable[[], set[str]] = parser.accepts
    return frozenset(accepts())


def unexpected(tokens: list[Lexeme], index: int, start: Start) -> Diagnostic:
    """The diagnostic for `tokens[index]`, or for the end if that is past the last."""
    could = accepted(tokens[:index], start)
    expected = phrase(could)
    if index == len(tokens):
        hint = _unfinished(tokens[-1], could)
        return UnexpectedEnd(span=tokens[-1].span, expected=expected, hint=hint)
    token = tokens[index]
    if index and (near := _misspelt(tokens[index - 1], tokens[: index - 1], start)):
        return _unexpected(tokens[index - 1], "a keyword", near)
    hint = _hint(tokens, index, start, could)
    if token in keywords() and "NAME" in could and not hint:
        return ReservedWord(span=token.span, word=str(token))
    return _unexpected(token, expected, hint)


def nothing(source: Source, start: Start) -> Diagnostic:
    """The diagnostic for a text without a token where one is needed."""
    end = Span(source, len(source.text), len(source.text))
    return UnexpectedEnd(span=end, expected=phrase(accepted((), start)))


def phrase(could: frozenset[str]) -> str:
    """`a name, `,` or an operator`."""
    said, rest = [], set(could)
    if "COMMA" in rest:
        rest -= CONTINUING
    for words, group in GROUPS:
        if group <= rest:
            rest -= group | ALONG.get(words, frozenset())
            said += [words] if words else []
    rest -= {"$END", "SEMICOLON"} if said or len(rest) > 1 else set()
    said = [*map(_kind, sorted(rest, key=_rank)), *said]
    return " or ".join(filter(None, (", ".join(said[:-1]), said[-1])))


def _rank(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST)), name


def _kind(name: str) -> str:
    if name in KINDS:
        return KINDS[name]
    fixed = next((t for t in grammar().terminals if t.name == name), None)
    return f"`{fixed.pattern.value}`" if fixed else f"`{name.lower()}`"


def _unexpected(token: Lexeme, expected: str, hint: str) -> UnexpectedToken:
    text = str(token) if len(token) <= SHOWN else f"{token[:SHOWN]}..."
    return UnexpectedToken(
        span=token.span, found=f"`{text}`", expected=expected, hint=hint
    )


def _hint(tokens: list[Lexeme], index: int, start: Start, could: frozenset[str]) -> str:
    """A guess at the mistake, or the empty string."""
    token = tokens[index]
    if near := _misspelt(token, tokens[:index], start):
        return near
    if index and (hint := _unfinished(tokens[index - 1], could)):
        return hint
    if token.type == "COLON" and "EQUAL" in could:
        return "a value is given with `=`"
    if token.type == "LET" and "PRIMED" in could:
        return "a local name in a method needs no `let`"
    return ""


def _unfinished(before: Lexeme, could: frozenset[str]) -> str:
    """What to say if the word before is the bare name of a method."""
    if before.type == "NAME" and could == {"LPAR"}:
        return f"a method is applied with parentheses: `{before}(...)`"
    return ""


def _misspelt(token: Lexeme, before: list[Lexeme], start: Start) -> str:
    """`did you mean` a keyword that may stand where the token stands."""
    if token.type != "NAME":
        return ""
    could = accepted(before, start)
    words = [word for word, kind in keywords().items() if kind in could]
    return suggestion(token, words)
