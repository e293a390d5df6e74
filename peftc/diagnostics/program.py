"""Errors of writing a compiled model as a program of its own (720-729).

In: nothing.  Out: the diagnostic classes that `peftc.runtime.package` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class ForeignOperators(Diagnostic):
    """A program would need another package where it is run.

    A program is run by torch alone, so all of its operators have to be torch's.  Models
    call operators of other packages for what torch lacks: mixtures of experts one of
    transformers' where torch has no kernel for the device, quantized models those of
    their format.  Choose another way to compute it, then compile the model and write it
    again; experts have `model.set_experts_implementation("batched_mm")`.
    """

    code: ClassVar[str] = "PEFT720"
    title: ClassVar[str] = "the program would need more than torch"
    label: ClassVar[str] = "operators of other packages: {names}"
    help: ClassVar[str] = (
        'of experts: `model.set_experts_implementation("batched_mm")` before compiling'
    )
    exit_code: ClassVar[int] = 5
    names: str


@dataclass(frozen=True, kw_only=True)
class NoProgram(Diagnostic):
    """A compiled model could not be made into a program for all sizes.

    A program takes any number of samples and tokens, and is written only if it gives
    what the model gives for another number of both.  Some forwards compute with their
    sizes in Python, which fixes them, or make values that depend on those of others.
    Give arguments that lead through another part of the forward (`inputs=`).
    """

    code: ClassVar[str] = "PEFT721"
    title: ClassVar[str] = "the model does not make a program"
    label: ClassVar[str] = "{problem}"
    exit_code: ClassVar[int] = 5
    problem: str


@dataclass(frozen=True, kw_only=True)
class NoCompiler(Diagnostic):
    """A compiled package needs a C++ compiler, and none was found.

    `to="aoti"` makes machine code of the program.  Install g++ or clang++, or name one
    by the environment variable CXX; or write the program itself with `to="pt2"`, which
    needs no compiler here and none where it is run.
    """

    code: ClassVar[str] = "PEFT722"
    title: ClassVar[str] = "no C++ compiler"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = 'install g++, or write the program itself with `to="pt2"`'
    exit_code: ClassVar[int] = 5
    problem: str
