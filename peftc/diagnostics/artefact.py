"""Errors of adapter files (620-629).

In: nothing.  Out: the diagnostic classes that saving and loading raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class NoAdapter(Diagnostic):
    """There is no adapter file where one was looked for.

    An adapter is one regular file named `adapter.safetensors`, in the folder given or
    given itself.  Links, folders and devices are refused.  A folder of another tool
    is none: `peftc import FOLDER MODEL -o DIR` makes one of it.
    """

    code: ClassVar[str] = "PEFT620"
    title: ClassVar[str] = "no adapter to load"
    label: ClassVar[str] = "`{path}`: {problem}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 3
    path: str
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class DamagedAdapter(Diagnostic):
    """An adapter file is not a whole safetensors file.

    It was cut off, altered, or is something else.  peftc writes adapters whole or not
    at all, so this happened afterwards: copy the file again.
    """

    code: ClassVar[str] = "PEFT621"
    title: ClassVar[str] = "the adapter file is damaged"
    label: ClassVar[str] = "`{path}`: {problem}"
    exit_code: ClassVar[int] = 3
    path: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class UnknownFormat(Diagnostic):
    """A safetensors file is not an adapter of peftc, or of a version unknown here.

    The metadata of the file must hold spec, plan, seed and the base's fingerprint.
    """

    code: ClassVar[str] = "PEFT622"
    title: ClassVar[str] = "not an adapter this version can read"
    label: ClassVar[str] = "`{path}`: {problem}"
    exit_code: ClassVar[int] = 3
    path: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class TensorsDiffer(Diagnostic):
    """The tensors in an adapter are not exactly those of its plan.

    One is missing, one is there that the plan does not know, or one has another shape
    or dtype.  Nothing is loaded in part.
    """

    code: ClassVar[str] = "PEFT623"
    title: ClassVar[str] = "the adapter's tensors are not those of its plan"
    label: ClassVar[str] = "`{tensor}` {problem}"
    exit_code: ClassVar[int] = 3
    tensor: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class NotFinite(Diagnostic):
    """A tensor of an adapter contains NaN or infinity.

    Training diverged (a learning rate too high, a loss in float16 without scaling), or
    the file was tampered with.  Such an adapter is neither written nor loaded.
    """

    code: ClassVar[str] = "PEFT624"
    title: ClassVar[str] = "an adapter tensor is not finite"
    label: ClassVar[str] = "`{tensor}` has {count:,} values that are NaN or infinite"
    exit_code: ClassVar[int] = 5
    tensor: str
    count: int


@dataclass(frozen=True, kw_only=True)
class OtherBase(Diagnostic):
    """An adapter is loaded onto another base than it was made on.

    Every parameter of the base was hashed when the adapter was saved; another model,
    another revision, another dtype or a single flipped bit differs.  With
    `any_base=True` (`peftc.load(model, folder, any_base=True)`) it is loaded all the
    same, and files saved from then on say so.
    """

    code: ClassVar[str] = "PEFT625"
    title: ClassVar[str] = "the adapter was made on another base"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "`any_base=True` loads it all the same"
    exit_code: ClassVar[int] = 3
    problem: str


@dataclass(frozen=True, kw_only=True)
class OtherPlan(Diagnostic):
    """An adapter is loaded into a model that was compiled with other methods.

    Sites, methods, knobs or the definitions of the methods differ, so the tensors would
    mean something else.  `peftc.load` compiles the base with the adapter's own plan.
    """

    code: ClassVar[str] = "PEFT626"
    title: ClassVar[str] = "the adapter was made with another plan"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "use `peftc.load(model, folder)` on the bare base"
    exit_code: ClassVar[int] = 3
    problem: str


@dataclass(frozen=True, kw_only=True)
class CannotWrite(Diagnostic):
    """An adapter could not be written; a file that was there before is untouched.

    The disk is full, or the folder does not exist or may not be written to.
    """

    code: ClassVar[str] = "PEFT627"
    title: ClassVar[str] = "cannot write the adapter"
    label: ClassVar[str] = "`{path}`: {problem}"
    exit_code: ClassVar[int] = 5
    path: str
    problem: str
