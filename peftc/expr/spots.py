"""Places inside a node that have no node of their own: a name, a type, a place."""

from __future__ import annotations

import re

from peftc.syntax.source import Span


def spot(span: Span, word: str, after: str = "") -> Span:
    """Where a word stands in a span, behind another word; else the whole span."""
    behind = rf"\b{re.escape(after)}\b" if after.isalpha() else re.escape(after)
    pattern = rf"(?<![\w.])({re.escape(word)})(?![\w])"
    lead = re.search(behind, span.text)
    found = re.compile(pattern).search(span.text, lead.end() if lead else 0)
    if not found:
        return span
    return Span(span.source, span.start + found.start(1), span.start + found.end(1))


def header(span: Span) -> Span:
    """A clause without its body."""
    length = len(span.text.partition("{")[0].rstrip())
    return Span(span.source, span.start, span.start + length)


def before(value: Span, name: str) -> Span:
    """Where the name of `name=value` stands; else the value."""
    pattern = rf"\b({re.escape(name)})\s*=[\s(]*$"
    found = re.search(pattern, value.source.text[: value.start])
    return Span(value.source, *found.span(1)) if found else value
