"""Errors of the command line itself.

In: nothing.  Out: the diagnostic classes that commands raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class CannotWrite(Diagnostic):
    """The output folder is not peftc's to write, or the disk does not take it.

    An output folder must be new, empty, or one that peftc wrote earlier.  What was
    there before is untouched.
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


@dataclass(frozen=True, kw_only=True)
class NotVerified(Diagnostic):
    """A compiled model does not keep a promise on this machine.

    `peftc verify` tries what is promised of every compiled model: it starts as the base
    where its equations say so, every trained tensor gets a gradient, merged equals
    unmerged, cached generation equals full recomputation, and padding changes no real
    token.  A failure is peftc's fault or that of the model's own code; please report
    it with the output of `peftc doctor`.
    """

    code: ClassVar[str] = "PEFT664"
    title: ClassVar[str] = "not verified"
    label: ClassVar[str] = "failed: {checks}"
    exit_code: ClassVar[int] = 4
    checks: str


@dataclass(frozen=True, kw_only=True)
class UnknownPass(Diagnostic):
    """`peftc opt --passes` names something that is no pass over plans.

    Passes over captured graphs need a model; they run in `peftc compile`.
    """

    code: ClassVar[str] = "PEFT665"
    title: ClassVar[str] = "unknown pass"
    label: ClassVar[str] = "`{name}` is no pass over plans"
    notes: ClassVar[tuple[str, ...]] = ("they are {known}",)
    help: ClassVar[str] = "{hint}"
    name: str
    known: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class PassesOutOfOrder(Diagnostic):
    """A pass was asked to run before what it needs.

    A pass states facts that must hold of a plan before it runs, and an earlier pass, or
    what the plan's text says already, ensures them.
    """

    code: ClassVar[str] = "PEFT666"
    title: ClassVar[str] = "passes in a wrong order"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "without `--passes` the whole pipeline runs"
    problem: str


@dataclass(frozen=True, kw_only=True)
class UnreadableFile(Diagnostic):
    """A file that a command needs cannot be read, or is not what it should be.

    Example: `peftc diff a.plan b.plan` where `b.plan` is a folder, or no plan.

    Fix: name a file that the command says it takes (`peftc COMMAND --help`).
    """

    code: ClassVar[str] = "PEFT667"
    title: ClassVar[str] = "cannot read this file"
    label: ClassVar[str] = "`{path}`: {problem}"
    exit_code: ClassVar[int] = 2
    path: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotUsable(Diagnostic):
    """`peftc doctor` found that peftc cannot do its work in this environment.

    It captures, rewrites and runs a small model; one of these steps failed, or a
    package that it needs is missing or of another version.

    Fix: what the table names, mostly `pip install` with the versions of
    constraints.txt.
    """

    code: ClassVar[str] = "PEFT668"
    title: ClassVar[str] = "something here does not work"
    label: ClassVar[str] = "{problems}"
    exit_code: ClassVar[int] = 5
    problems: str


@dataclass(frozen=True, kw_only=True)
class FailsAgain(Diagnostic):
    """`peftc replay` saw the crash of a reproducer again.

    The exit code is that of the crash.  When peftc has been mended, the replay ends
    with exit code 0 and says so.
    """

    code: ClassVar[str] = "PEFT669"
    title: ClassVar[str] = "it still fails"
    label: ClassVar[str] = "{what}"
    exit_code: ClassVar[int] = 70
    what: str


@dataclass(frozen=True, kw_only=True)
class FailsDifferently(Diagnostic):
    """`peftc replay` ran the stage of a reproducer, and it failed in another way.

    Something between the crash and now has changed: peftc, torch, transformers, or the
    files of the reproducer.  The old failure may be mended and hide another.

    Fix: compare the versions that the reproducer notes with those of `peftc doctor`.
    """

    code: ClassVar[str] = "PEFT670"
    title: ClassVar[str] = "it fails, but differently"
    label: ClassVar[str] = "{what}"
    notes: ClassVar[tuple[str, ...]] = ("before: {before}",)
    exit_code: ClassVar[int] = 4
    what: str
    before: str
