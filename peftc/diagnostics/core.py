"""What a diagnostic is, and how a stage reports all of its own at once.

One frozen dataclass per error, next to its stage (`diagnostics/syntax.py`,
`diagnostics/resolve.py`, ...).  The class docstring is the long explanation that
`peftc explain CODE` prints; its fields fill the templates.  Codes by stage: 1xx syntax,
2xx resolve, 3xx plan, 4xx capture and rewrite, 5xx codegen, 6xx runtime, 9xx internal.
Codes are never reused.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peftc.syntax.source import Span

REGISTRY: dict[str, type[Diagnostic]] = {}


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One message to the user.

    `title`, `label`, `notes` and `help` are `str.format` templates over the fields.
    `label` is written under the caret; a `help` or note that formats to the empty
    string is left out.  `exit_code` is what the command line returns for it.
    """

    code: ClassVar[str] = ""
    title: ClassVar[str] = ""
    label: ClassVar[str] = ""
    notes: ClassVar[tuple[str, ...]] = ()
    help: ClassVar[str] = ""
    exit_code: ClassVar[int] = 1

    span: Span | None = None

    def __init_subclass__(cls) -> None:
        """Register the code; a duplicate or a missing explanation fails at import."""
        if cls.code in REGISTRY:
            raise TypeError(f"{cls.__name__}: code {cls.code} is already taken")
        if not cls.__doc__ or not cls.code or not cls.title:
            raise TypeError(f"{cls.__name__}: needs a code, a title and a docstring")
        REGISTRY[cls.code] = cls

    def fill(self, template: str) -> str:
        """A template with this diagnostic's fields put in."""
        return template.format_map(
            {f.name: getattr(self, f.name) for f in fields(self)}
        )

    def __str__(self) -> str:
        place = f"{self.span}: " if self.span else ""
        return f"{place}[{self.code}] {self.fill(self.title)}: {self.fill(self.label)}"


class PeftcError(Exception):
    """Raised at the end of a stage that found errors; carries all of them."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        """What a traceback ends in: the diagnostics as the command line shows them."""
        from peftc.diagnostics.render import render_all

        return "\n" + render_all(self.diagnostics)

    @property
    def exit_code(self) -> int:
        """The exit code of the command that ends with this error."""
        return max(d.exit_code for d in self.diagnostics)


def fail(diagnostic: Diagnostic) -> PeftcError:
    """`raise fail(SomeError(...))`: an error of one diagnostic."""
    return PeftcError((diagnostic,))


class Diagnostics:
    """The errors of one stage, collected in order; equal ones are kept once."""

    def __init__(self) -> None:
        self._found: dict[Diagnostic, None] = {}

    def add(self, diagnostic: Diagnostic) -> None:
        """Note an error and go on."""
        self._found.setdefault(diagnostic)

    def absorb(self, error: PeftcError) -> None:
        """Note all errors of a sub-stage that failed."""
        for diagnostic in error.diagnostics:
            self.add(diagnostic)

    def check(self) -> None:
        """Raise `PeftcError` if anything was found."""
        if self._found:
            raise PeftcError(self._found)

    def __iter__(self) -> Iterator[Diagnostic]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean ...?` for a misspelt word, or the empty string."""
    near = difflib.get_close_matches(word, sorted(set(known)), n=1, cutoff=0.6)
    return f"did you mean `{near[0]}`?" if near else ""
