"""Errors of the command line itself.

In: nothing.  Out: the diagnostic classes that commands raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class CannotWrite(Diagnostic):
    """The output folder is not peftc's to write.

    An output folder must be new, empty, or one that peftc wrote earlier.
    """

    code: ClassVar[str] = "PEFT660"
    title: ClassVar[str] = "cannot write there"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "name another folder with `-o`"
    problem: str


@dataclass(frozen=True, kw_only=True)
class UnknownTopic(Diagnostic):
    """`peftc explain` is asked for something it does not know.

    It explains diagnostic codes (`PEFT201`) and methods (`lora`).
    """

    code: ClassVar[str] = "PEFT661"
    title: ClassVar[str] = "nothing to explain"
    label: ClassVar[str] = "`{topic}` is neither a code nor a method"
    help: ClassVar[str] = "{hint}"
    topic: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class NoTokenizer(Diagnostic):
    """`peftc generate` needs to turn text into tokens, and the model has no tokenizer.

    A model folder usually carries one; byte-level models do not: `--bytes` takes the
    bytes of the text as tokens.
    """

    code: ClassVar[str] = "PEFT662"
    title: ClassVar[str] = "no tokenizer"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "`--bytes` uses the bytes of the text as tokens"
    exit_code: ClassVar[int] = 3
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotFormatted(Diagnostic):
    """`peftc fmt --check` found files that are not in canonical form.

    Run `peftc fmt` on them; it changes layout only, never meaning or comments.
    """

    code: ClassVar[str] = "PEFT663"
    title: ClassVar[str] = "not formatted"
    label: ClassVar[str] = "{files}"
    help: ClassVar[str] = "`peftc fmt` writes the canonical form"
    files: str
