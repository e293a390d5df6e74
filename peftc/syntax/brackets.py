"""Brackets, and the pieces between item keywords.

In: the tokens of a text.  Out: segments that begin with `method`, `spec`, `let` or
`use`, each read on its own, so that a broken one does not hide the errors of the next;
and an error for a bracket without its partner, or for too many inside each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from peftc.diagnostics.syntax import TooDeep, UnclosedBracket, UnopenedBracket
from peftc.syntax.limits import MAX_BRACKETS
from peftc.syntax.tokens import CLOSING, OPENING, first_on_line

if TYPE_CHECKING:
    from peftc.diagnostics.core import Diagnostic
    from peftc.syntax.build import Lexeme

ITEM_WORDS = frozenset({"METHOD", "SPEC", "LET", "USE"})
ENDING = frozenset({"NAME", "PATH", "NUMBER", "STRING", "TRANSPOSE"}) | CLOSING
"""Tokens that can end an expression."""

PARTNER = {"(": ")", "[": "]", "{": "}"}


@dataclass
class Segment:
    """Tokens read together; a broken one has been reported and is not read."""

    tokens: list[Lexeme] = field(default_factory=list)
    broken: bool = False
    stack: list[Lexeme] = field(default_factory=list)

    def begins_item(self, tokens: list[Lexeme], index: int) -> bool:
        """Whether the token ends this segment: an item's keyword or a new expression
        outside brackets, or a keyword that stands no deeper than this segment's own.
        """
        token = tokens[index]
        if not self.tokens:
            return False
        if not self.stack:
            return self.complete(tokens, index) or token.type in ITEM_WORDS
        if token.type not in ITEM_WORDS:
            return False
        deep = token.span.column > self.tokens[0].span.column
        return first_on_line(tokens, index) and not deep

    def complete(self, tokens: list[Lexeme], index: int) -> bool:
        """Whether the token, outside brackets, cannot go on with what was said."""
        token, before = tokens[index], self.tokens[-1].type
        if before == "RBRACE":
            return token.type != "ON"
        starts = token.type == "OPEN" or token.type == "NAME"
        return starts and before in ENDING and first_on_line(tokens, index)

    def take(self, token: Lexeme) -> Diagnostic | None:
        """Add a token and follow the brackets; at most one error per segment."""
        self.tokens.append(token)
        self.broken |= token.type == "ERROR"
        if token.type in OPENING:
            self.stack.append(token)
        elif token.type in CLOSING:
            return self.close(token)
        return None

    def close(self, token: Lexeme) -> Diagnostic | None:
        """Match a closing bracket with the last open one."""
        if not self.stack:
            return self.report(UnopenedBracket(span=token.span, closing=str(token)))
        opening = self.stack.pop()
        if OPENING[opening.type] == token.type:
            return None
        instead = f"`{token}` on line {token.span.line} comes first"
        return self.report(_unclosed(opening, instead))

    def finish(self) -> Diagnostic | None:
        """What is still open when the segment ends."""
        return self.report(_unclosed(self.stack[-1])) if self.stack else None

    def report(self, error: Diagnostic) -> Diagnostic | None:
        """The error, unless the segment is broken already."""
        known, self.broken = self.broken, True
        return None if known else error


def _unclosed(opening: Lexeme, instead: str = "") -> UnclosedBracket:
    closing = PARTNER[opening]
    return UnclosedBracket(
        span=opening.span, opening=str(opening), closing=closing, instead=instead
    )


def segments(tokens: list[Lexeme]) -> tuple[list[Segment], list[Diagnostic]]:
    """Cut a text at its item keywords; alone `TooDeep` if brackets nest too far."""
    done = [Segment()]
    errors: list[Diagnostic] = []
    for index, token in enumerate(tokens):
        if done[-1].begins_item(tokens, index):
            errors += filter(None, [done[-1].finish()])
            done.append(Segment())
        errors += filter(None, [done[-1].take(token)])
        if len(done[-1].stack) > MAX_BRACKETS:
            return [], [TooDeep(span=token.span, limit=MAX_BRACKETS, what="brackets")]
    errors += filter(None, [done[-1].finish()])
    return done, errors
