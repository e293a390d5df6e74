"""From a text to its syntax tree.

In: a `Source`, or a text.  Out: a tree with exact spans and all comments; or
`PeftcError` with every independent error of the text.  Nothing else is ever raised:
size, nesting and numbers are limited before a tree is built (`syntax.limits`).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, cast

from lark import Token, UnexpectedToken

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.syntax import TooDeep, TooLarge
from peftc.syntax import ast
from peftc.syntax.brackets import Segment, segments
from peftc.syntax.comments import attach
from peftc.syntax.expected import nothing, unexpected
from peftc.syntax.grammar import Start, begin
from peftc.syntax.limits import MAX_ERRORS, not_text, too_large
from peftc.syntax.source import Source, Span
from peftc.syntax.tokens import Scan, scan
from peftc.syntax.walk import faults

if TYPE_CHECKING:
    from peftc.diagnostics.core import Diagnostic
    from peftc.syntax.build import Lexeme


def parse(source: Source) -> ast.File:
    """Read a whole text: definitions, and at most one spec to compile."""
    found = _scan(source)
    items = cast("tuple[ast.Item, ...]", _read(found, "file"))
    braces = [token.start for token in found.tokens if token.type == "LBRACE"]
    items, closing = attach(items, found.comments, braces)
    return ast.File(items, closing, span=Span(source, 0, len(source.text)))


def parse_spec(text: str, name: str = "<spec>") -> ast.File:
    """Read a spec given as a text.

    >>> parse_spec("lora(q, v, r=8)").items[0].body.name
    'lora'
    """
    return parse(Source(name, text))


def parse_method(text: str, name: str = "<method>") -> ast.Method:
    """Read one method definition; comments are left out."""
    return cast("ast.Method", _read(_scan(Source(name, text)), "method")[0])


def parse_expr(text: str, name: str = "<expression>") -> ast.Expr:
    """Read one expression of an equation."""
    return cast("ast.Expr", _read(_scan(Source(name, text)), "expr")[0])


def _scan(source: Source) -> Scan:
    """The tokens of a text that is within bounds."""
    if error := too_large(source) or not_text(source):
        raise fail(error)
    return scan(source)


def _read(found: Scan, start: Start) -> tuple[ast.Node, ...]:
    """The trees of all segments, or all their errors."""
    pieces, errors = segments(found.tokens)
    if alone := [
        e for e in (*errors, *found.errors) if isinstance(e, TooDeep | TooLarge)
    ]:
        raise fail(alone[0])
    nodes: list[ast.Node] = []
    if start != "file":
        broken = any(piece.broken for piece in pieces)
        pieces = [Segment(found.tokens, broken)] if pieces else []
    errors += found.errors
    for piece in pieces:
        if not piece.broken and len(errors) < MAX_ERRORS:
            try:
                nodes += _feed(piece.tokens, start, found.source)
            except PeftcError as error:
                errors += error.diagnostics
    errors += islice(faults(tuple(nodes)), MAX_ERRORS)
    if errors:
        raise PeftcError(sorted(dict.fromkeys(errors), key=_start)[:MAX_ERRORS])
    return tuple(nodes)


def _start(error: Diagnostic) -> int:
    return error.span.start if error.span else 0


def _feed(tokens: list[Lexeme], start: Start, source: Source) -> tuple[ast.Node, ...]:
    """The value of tokens that form one `start`."""
    parser = begin(start)
    index = 0
    try:
        for token in tokens:
            parser.feed_token(token)
            index += 1
        value = parser.feed_token(Token("$END", ""))
    except UnexpectedToken:
        error = unexpected(tokens, index, start) if tokens else nothing(source, start)
        raise fail(error) from None
    return value if isinstance(value, tuple) else (value,)
