"""A text and all it uses, as one set of definitions.

In: a parsed source and the folder it may read from.  Out: `Unit`: lets, the library
extended by the texts' own definitions, and the main expression.  Only regular files
inside the folder of the spec are opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics, PeftcError, fail
from peftc.diagnostics.resolve import CannotUse, Cycle, DefinedTwice
from peftc.resolve.library import Library, standard_library
from peftc.syntax import ast
from peftc.syntax.parse import parse
from peftc.syntax.read import read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.syntax.source import Source


@dataclass(frozen=True)
class Unit:
    """Everything a spec can name, and what it applies."""

    library: Library
    lets: Mapping[str, ast.Let]
    main: ast.Main | None


@dataclass
class _Gathering:
    """The definitions found so far, while files are read depth first."""

    root: Path
    errors: Diagnostics
    library: Library = field(default_factory=standard_library)
    lets: dict[str, ast.Let] = field(default_factory=dict)
    done: set[Path] = field(default_factory=set)


def gather(source: Source, root: Path) -> Unit:
    """Parse a text and the files it uses.

    Args:
        source: the text; its name is the file's path if it came from one.
        root: the folder that `use` may read from.

    Raises:
        PeftcError: with the errors of all files.
    """
    file = parse(source)
    state = _Gathering(root.resolve(), Diagnostics())
    _take(file, state, chain=(Path(source.name),))
    state.errors.check()
    main = next((item for item in file.items if isinstance(item, ast.Main)), None)
    return Unit(state.library, state.lets, main)


def _take(file: ast.File, state: _Gathering, chain: tuple[Path, ...]) -> None:
    """Add a file's definitions, those of its `use`s first."""
    for item in file.items:
        if isinstance(item, ast.Use):
            _attempt(state, partial(_use, item, state, chain))
    for item in file.items:
        if isinstance(item, ast.Let):
            _attempt(state, partial(_let, item, state))
    _attempt(state, partial(_define, file, state))


def _attempt(state: _Gathering, step: Callable[[], None]) -> None:
    """Run a step; keep its errors and go on."""
    try:
        step()
    except PeftcError as error:
        state.errors.absorb(error)


def _define(file: ast.File, state: _Gathering) -> None:
    state.library = state.library.with_file(file)


def _let(item: ast.Let, state: _Gathering) -> None:
    if item.name in state.lets:
        where = f"at {state.lets[item.name].span}"
        raise fail(DefinedTwice(span=item.span, name=item.name, where=where))
    state.lets[item.name] = item


def _use(item: ast.Use, state: _Gathering, chain: tuple[Path, ...]) -> None:
    path = _inside(item.path, state.root, chain[-1])
    if path in (resolved := [p.resolve() for p in chain]):
        names = [p.name for p in resolved[resolved.index(path) :]]
        text = " uses ".join((*names, path.name))
        raise fail(Cycle(span=item.path.span, chain=text))
    if path not in state.done:
        state.done.add(path)
        _take(parse(_read(item.path, path)), state, (*chain, path))


def _inside(path: ast.String, root: Path, user: Path) -> Path:
    """The file meant, if it lies in the folder; links are followed before judging."""
    base = user.parent if user.suffix else root
    target = (base / path.value).resolve()
    if not target.is_relative_to(root):
        problem = f"`{path.value}` is outside the folder of the spec"
        raise fail(CannotUse(span=path.span, problem=problem))
    return target


def _read(path: ast.String, target: Path) -> Source:
    try:
        return read_source(target)
    except OSError as error:
        problem = f"`{path.value}` cannot be read: {error.strerror}"
        raise fail(CannotUse(span=path.span, problem=problem)) from None
