"""Texts and places in them.

In: a name and a text.  Out: `Source` and `Span`, which every AST node, plan item and
diagnostic carries.  Offsets count characters of `Source.text`, from zero.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Source:
    """A named text: a file, or a spec given as a string (`name` is then `<spec>`)."""

    name: str
    text: str

    @cached_property
    def line_starts(self) -> tuple[int, ...]:
        """Offsets at which lines begin."""
        breaks = (i + 1 for i, char in enumerate(self.text) if char == "\n")
        return (0, *breaks)

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from one."""
        line = bisect_right(self.line_starts, offset)
        return line, offset - self.line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (from one), without its line break."""
        lines = self.text.split("\n")  # not splitlines: `position` counts "\n" alone
        return lines[number - 1].removesuffix("\r") if number <= len(lines) else ""


@dataclass(frozen=True)
class Span:
    """A half-open range of characters in a source."""

    source: Source
    start: int
    end: int

    @property
    def line(self) -> int:
        """First line, from one."""
        return self.source.position(self.start)[0]

    @property
    def column(self) -> int:
        """First column, from one."""
        return self.source.position(self.start)[1]

    @property
    def text(self) -> str:
        """The characters covered."""
        return self.source.text[self.start : self.end]

    def to(self, other: Span) -> Span:
        """The span from the start of this one to the end of `other`."""
        return Span(self.source, self.start, other.end)

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line}:{self.column}"
