"""Errors of merging adapters into the files of a base (740 and 741).

In: nothing.  Out: the diagnostic classes that `peftc.merging` raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class WrongSum(Diagnostic):
    """Several adapters cannot be added up in the way that is asked for.

    Each has a weight in the sum; `linear` adds the changes, `ties` and `dare` keep a
    part of each, the `density`.

    Example: `peftc merge a base --also b --weights 1 -o out`

    Fix: `peftc merge a base --also b --weights 0.7,0.3 -o out`
    """

    code: ClassVar[str] = "PEFT740"
    title: ClassVar[str] = "the adapters cannot be added up so"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 2
    problem: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class OtherNames(Diagnostic):
    """A folder's weights cannot be merged tensor by tensor.

    It has no safetensors files, or Transformers makes the model's tensors out of others
    while it loads them: it stacks the matrices of experts, for one.

    Fix: merge the model in memory, `peftc merge --in-memory`; or load it and save it
    once with Transformers, if that writes the names the model has.
    """

    code: ClassVar[str] = "PEFT741"
    title: ClassVar[str] = "the weights cannot be merged tensor by tensor"
    label: ClassVar[str] = "{problem}"
    help: ClassVar[str] = "merge in memory (`--in-memory`)"
    exit_code: ClassVar[int] = 3
    problem: str
