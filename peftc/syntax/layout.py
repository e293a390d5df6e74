"""Laying out text within a width.

In: a `Doc`, text with places where lines may break.  Out: the text, each group on one
line if it fits and broken at all of its own places if not (Wadler's prettier printer,
without recursion).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, Union

if TYPE_CHECKING:
    from collections.abc import Iterable

Doc: TypeAlias = Union[str, tuple["Doc", ...], "Line", "Nest", "Group", "Aside"]


@dataclass(frozen=True)
class Line:
    """A line break if the group around it is broken, else `flat`."""

    flat: str = " "
    hard: bool = False


@dataclass(frozen=True)
class Nest:
    """A part whose lines are indented by two more."""

    inner: Doc


@dataclass(frozen=True)
class Group:
    """A part that is laid out flat if it fits."""

    inner: Doc


@dataclass(frozen=True)
class Aside:
    """Text that takes no part in the measuring: a comment behind a line."""

    text: str


HARD = Line(hard=True)
SOFT = Line("")
SPACE = Line()

_Mode: TypeAlias = Literal["flat", "broken"]
_Todo: TypeAlias = list[tuple[int, _Mode, Doc]]


def join(separator: Doc, parts: Iterable[Doc]) -> Doc:
    """The parts with the separator between them."""
    joined: list[Doc] = []
    for part in parts:
        joined += [separator, part] if joined else [part]
    return tuple(joined)


def listed(opening: str, parts: Iterable[Doc], closing: str) -> Doc:
    """A bracketed list: on one line, or one part on each."""
    inner = join((",", SPACE), parts)
    if not inner:
        return opening + closing
    return Group((opening, Nest((SOFT, inner)), SOFT, closing))


def lay_out(doc: Doc, width: float) -> str:
    """The text of a doc; no blanks at the ends of lines."""
    out: list[str] = []
    column = 0
    todo: _Todo = [(0, "broken", doc)]
    while todo:
        indent, mode, part = todo.pop()
        if isinstance(part, Group):
            fits = _fits(part.inner, width - column, todo)
            todo.append((indent, "flat" if fits else "broken", part.inner))
        elif isinstance(part, Line) and (part.hard or mode == "broken"):
            out.append("\n" + " " * indent)
            column = indent
        elif isinstance(part, str | Line | Aside):
            text = _flat(part)
            out.append(text)
            column += len(text)
        else:
            todo += _inside(indent, mode, part)
    return "\n".join(line.rstrip(" ") for line in "".join(out).split("\n"))


def _inside(indent: int, mode: _Mode, part: Doc) -> _Todo:
    """The parts of a compound one, last first."""
    if isinstance(part, Nest):
        return [(indent + 2, mode, part.inner)]
    if isinstance(part, Group):
        return [(indent, mode, part.inner)]
    assert isinstance(part, tuple)
    return [(indent, mode, inner) for inner in reversed(part)]


def _flat(part: str | Line | Aside) -> str:
    if isinstance(part, str):
        return part
    return part.flat if isinstance(part, Line) else part.text


def _fits(doc: Doc, room: float, rest: _Todo) -> bool:
    """Whether a doc laid out flat, with what follows it on the line, fits."""
    todo: _Todo = [(0, "flat", doc)]
    behind = len(rest)
    while room >= 0:
        if not todo:
            if not behind:
                return True
            behind -= 1
            todo.append(rest[behind])
        _, mode, part = todo.pop()
        if isinstance(part, Line) and (part.hard or mode == "broken"):
            return not part.hard or mode == "broken"
        if isinstance(part, str | Line):
            room -= len(_flat(part))
        elif not isinstance(part, Aside):
            todo += _inside(0, mode, part)
    return False
