"""Diagnostics for people and for programs.

In: diagnostics.  Out: text in the manner of rustc, with the lines of the source and a
caret; or a versioned dict for `--json`.  A text may come from a stranger: characters
that would move the cursor or reorder the line are shown as signs, and a line of any
length is cut to the part around the span.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peftc.diagnostics.core import Diagnostic
    from peftc.syntax.source import Span

JSON_VERSION = 1
TAB = 4
WINDOW = 100

RED, BLUE, CYAN, BOLD, PLAIN = (
    "\033[1;31m",
    "\033[1;34m",
    "\033[36m",
    "\033[1m",
    "\033[0m",
)


@dataclass(frozen=True)
class Paint:
    """Terminal colours, or none."""

    on: bool

    def __call__(self, colour: str, text: str) -> str:
        """The text in a colour."""
        return f"{colour}{text}{PLAIN}" if self.on and text else text


def render(diagnostic: Diagnostic, color: bool = False) -> str:
    """One diagnostic as text, without a line break at its end."""
    paint = Paint(color)
    title = plain(diagnostic.fill(diagnostic.title))
    lines = [paint(RED, f"error[{diagnostic.code}]") + paint(BOLD, f": {title}")]
    label = plain(diagnostic.fill(diagnostic.label))
    if diagnostic.span is not None:
        lines.append(paint(CYAN, plain(str(diagnostic.span))))
    if diagnostic.span is not None and diagnostic.span.source.text:
        lines += _excerpt(diagnostic.span, label, paint)
    elif label:
        lines.append(label)
    for note in _notes(diagnostic):
        lines.append(paint(BOLD, "note") + f": {plain(note)}")
    if advice := diagnostic.fill(diagnostic.help):
        lines.append(paint(BOLD, "help") + f": {plain(advice)}")
    return "\n".join(lines)


def render_all(diagnostics: Iterable[Diagnostic], color: bool = False) -> str:
    """Several diagnostics with a blank line between them."""
    return "\n\n".join(render(diagnostic, color) for diagnostic in diagnostics)


def to_json(diagnostics: Iterable[Diagnostic]) -> dict[str, Any]:
    """Diagnostics as plain data; places count from one, the end is exclusive."""
    return {
        "version": JSON_VERSION,
        "diagnostics": [_as_dict(diagnostic) for diagnostic in diagnostics],
    }


def _as_dict(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "code": diagnostic.code,
        "title": diagnostic.fill(diagnostic.title),
        "message": str(diagnostic),
        "label": diagnostic.fill(diagnostic.label),
        "notes": _notes(diagnostic),
        "help": diagnostic.fill(diagnostic.help),
        **_place(diagnostic.span),
    }


def _place(span: Span | None) -> dict[str, Any]:
    names = ("file", "line", "column", "end_line", "end_column")
    if span is None:
        return dict.fromkeys(names)
    end = span.source.position(span.end)
    return dict(
        zip(names, (span.source.name, span.line, span.column, *end), strict=True)
    )


def _notes(diagnostic: Diagnostic) -> list[str]:
    return [note for note in map(diagnostic.fill, diagnostic.notes) if note]


# --- the lines of the source ---------------------------------------------------------


def _excerpt(span: Span, label: str, paint: Paint) -> Iterator[str]:
    """The first and the last line of a span, each with its carets."""
    first, last = span.line, span.source.position(max(span.start, span.end - 1))[0]
    margin = len(str(last))
    for number in sorted({first, last}):
        text = span.source.line(number)
        start, end = _columns(span, number, text)
        shown, before, width = _window(text, start, end)
        yield paint(BLUE, f"{number:>{margin}} |") + f" {shown}".rstrip()
        said = f" {label}" if label and number == last else ""
        carets = paint(RED, "^" * width + said)
        yield paint(BLUE, " " * margin + " |") + " " * (before + 1) + carets
        if number == first and last > first + 1:
            yield paint(BLUE, "...")


def _columns(span: Span, number: int, text: str) -> tuple[int, int]:
    """The characters of one line that a span covers, from zero; blanks at the ends of
    lines are left out."""
    offset = span.source.line_starts[number - 1]
    start = max(span.start - offset, 0)
    end = min(span.end - offset, len(text.rstrip()))
    if span.start < offset:
        start = len(text) - len(text.lstrip())
    return min(start, len(text)), max(end, start)


def _window(text: str, start: int, end: int) -> tuple[str, int, int]:
    """A line as shown, the width before the carets, and the width of the carets.

    >>> _window("lora(q, vv)", 8, 10)
    ('lora(q, vv)', 8, 2)
    """
    left, right = 0, len(text)
    if right > WINDOW:
        left = max(0, min(start - WINDOW // 3, right - WINDOW))
        right = min(right, left + WINDOW)
        end = min(end, right)
    shown = plain(text[left:right])
    head, tail = "..." * (left > 0), "..." * (right < len(text))
    before = width_of(head + plain(text[left:start]))
    width = width_of(plain(text[left:end])) + len(head) - before
    return head + shown + tail, before, max(width, 1)


def plain(text: str) -> str:
    """The text with tabs as blanks, and a sign for what is not printed.

    >>> plain("a\\tb\\x1b[0m")
    'a   b\\u241b[0m'
    """
    out: list[str] = []
    column = 0
    for char in text:
        shown = _shown(char, column)
        out.append(shown)
        column = 0 if char == "\n" else column + width_of(shown)
    return "".join(out)


def _shown(char: str, column: int) -> str:
    if char == "\t":
        return " " * (TAB - column % TAB)
    if char == "\n" or char.isprintable() or char == " ":
        return char
    return chr(0x2400 + ord(char)) if char < " " else "\N{REPLACEMENT CHARACTER}"


def width_of(text: str) -> int:
    """Columns a text takes on a terminal: wide characters two, combining ones none."""
    return sum(map(_width, text))


def _width(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
