"""The one LALR grammar, loaded from the package `peftc.grammar` and kept."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from lark import Lark

from peftc.syntax.build import Builder

if TYPE_CHECKING:
    from lark.parsers.lalr_interactive_parser import InteractiveParser

Start: TypeAlias = Literal["file", "method", "expr", "sum"]


@cache
def grammar() -> Lark:
    """The parser tables and terminals; about 0.1 s the first time."""
    return Lark.open_from_package(
        "peftc.grammar",
        "peft.lark",
        parser="lalr",
        lexer="basic",
        start=["file", "method", "expr", "sum"],
        transformer=Builder(),
        maybe_placeholders=True,
    )


def begin(start: Start) -> InteractiveParser:
    """A parser that is fed the tokens of one `start`."""
    return grammar().parse_interactive("", start=start)
