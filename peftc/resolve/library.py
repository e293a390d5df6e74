"""The methods and specs a text can use without defining them.

In: the `.peft` files of `peftc.methods`, and those that installed packages offer under
the entry point `peftc.methods` (`name = "package:file.peft"`).  Out: `Library`, parsed
and checked.  Only texts are read; no code of a package runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from peftc.diagnostics.core import Diagnostics, PeftcError, fail
from peftc.diagnostics.knobs import LibraryHoldsNoMethods, LibraryUnreadable
from peftc.diagnostics.resolve import DefinedTwice
from peftc.diagnostics.space import WordOfChoice
from peftc.expr.check import check_method
from peftc.resolve.values import CHOICES
from peftc.syntax import ast
from peftc.syntax.parse import parse
from peftc.syntax.read import decode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from importlib.resources.abc import Traversable

GROUP = "peftc.methods"


@dataclass(frozen=True)
class Library:
    """Methods and macros by name; one name space for both."""

    methods: Mapping[str, ast.Method] = field(default_factory=dict)
    macros: Mapping[str, ast.Macro] = field(default_factory=dict)

    def with_file(self, file: ast.File) -> Library:
        """This library and the definitions of a file, which are checked.

        Raises:
            PeftcError: with all errors: a name that is taken already, wherever it was
                defined, and whatever is wrong with a method.
        """
        errors, library = Diagnostics(), self
        for item in file.items:
            if isinstance(item, (ast.Method, ast.Macro)):
                try:
                    library = library._with(item)
                except PeftcError as error:
                    errors.absorb(error)
        errors.check()
        return library

    def _with(self, item: ast.Method | ast.Macro) -> Library:
        errors = Diagnostics()
        known = self.methods.get(item.name) or self.macros.get(item.name)
        if known:
            where = _where(known)
            errors.add(DefinedTwice(span=item.span, name=item.name, where=where))
        if item.name in CHOICES:
            errors.add(WordOfChoice(span=item.span, name=item.name))
        if isinstance(item, ast.Macro):
            errors.check()
            return replace(self, macros={**self.macros, item.name: item})
        try:
            check_method(item)
        except PeftcError as error:
            errors.absorb(error)
        errors.check()
        return replace(self, methods={**self.methods, item.name: item})


def _where(known: ast.Method | ast.Macro) -> str:
    name = known.span.source.name
    if name.startswith("<peftc>/"):
        return "in the standard library"
    return f"at {known.span}"


@lru_cache(maxsize=1)
def standard_library() -> Library:
    """The library of peftc and of installed packages; read once.

    Raises:
        PeftcError: if a package's methods cannot be read or are wrong.
    """
    library = Library()
    for path in sorted(files("peftc.methods").iterdir(), key=lambda p: p.name):
        if path.name.endswith(".peft"):
            library = library.with_file(_read(path, f"<peftc>/{path.name}"))
    for entry in sorted(entry_points(group=GROUP), key=lambda e: e.name):
        library = library.with_file(_offered(entry))
    return library


def _read(path: Traversable, name: str) -> ast.File:
    file = parse(decode(path.read_bytes(), name))
    errors = Diagnostics()
    for wrong in _undefining(file):
        errors.add(wrong)
    errors.check()
    return file


def _undefining(file: ast.File) -> Iterator[LibraryHoldsNoMethods]:
    names = {ast.Use: "a `use`", ast.Let: "a `let`", ast.Main: "a spec to compile"}
    for item in file.items:
        if type(item) in names:
            yield LibraryHoldsNoMethods(span=item.span, what=names[type(item)])


def _offered(entry: EntryPoint) -> ast.File:
    """The file an installed package offers; the package is found, not imported."""
    package, _, path = entry.value.partition(":")
    problem = "it does not name `package:file.peft`"
    if package and path.endswith(".peft"):
        folder = _folder(package)
        target = folder.joinpath(path).resolve() if folder else None
        if target and folder and target.is_relative_to(folder):
            try:
                return _read(target, f"<{package}>/{path}")
            except OSError as error:
                problem = error.strerror or str(error)
        else:
            problem = "there is no such package" if not folder else "it is elsewhere"
    wrong = LibraryUnreadable(name=entry.name, value=entry.value, problem=problem)
    raise fail(wrong)


def _folder(package: str) -> Path | None:
    """The folder of a package; of a package inside one, found from the outer one."""
    outer, *inner = package.split(".")
    spec = find_spec(outer)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]).joinpath(*inner).resolve()
