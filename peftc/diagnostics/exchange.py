"""Errors of adapters in other tools' formats (730-739).

In: nothing.  Out: the diagnostic classes that exporting to such a format and importing
from it raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from peftc.diagnostics.core import Diagnostic


@dataclass(frozen=True, kw_only=True)
class NotExpressible(Diagnostic):
    """A rule of a spec has no counterpart in the format that was asked for.

    Example: `ia3(k)` with `--to portable`, whose only equation is a low-rank product
    added to a linear; a rule such as `y' = l * y` is none.

    Fix: export the rule to a format that has it (`--to peft`), or write a merged model
    with `peftc merge`.
    """

    code: ClassVar[str] = "PEFT730"
    title: ClassVar[str] = "the format cannot say this"
    label: ClassVar[str] = "{what} is nothing that {form} has"
    notes: ClassVar[tuple[str, ...]] = ("{reason}",)
    help: ClassVar[str] = "{hint}"
    what: str
    form: str
    reason: str
    hint: str = "`peftc merge` writes a plain model with every method in its weights"


@dataclass(frozen=True, kw_only=True)
class SeveralTypes(Diagnostic):
    """A spec holds methods of which each needs a folder of another type.

    A folder of Hugging Face PEFT has one type, for all of its modules: LORA, IA3,
    PREFIX_TUNING and so on.

    Fix: `--to portable`, if all of them add low-rank products; `peftc merge`; or train
    and export them as adapters of their own.
    """

    code: ClassVar[str] = "PEFT731"
    title: ClassVar[str] = "one folder has one type"
    label: ClassVar[str] = "the spec needs {types}"
    help: ClassVar[str] = (
        "`portable` takes what adds low-rank products; `peftc merge` takes all"
    )
    types: str


@dataclass(frozen=True, kw_only=True)
class DamagedFolder(Diagnostic):
    """A folder of another tool is not what it should be.

    Its configuration is no JSON, its tensors are not those that the configuration
    tells, or the weights are a pickle, which is never read because it may run code.

    Fix: save it again with the tool that wrote it, as safetensors.
    """

    code: ClassVar[str] = "PEFT732"
    title: ClassVar[str] = "the folder cannot be imported"
    label: ClassVar[str] = "`{path}`: {problem}"
    exit_code: ClassVar[int] = 3
    path: str
    problem: str


@dataclass(frozen=True, kw_only=True)
class UnknownSetting(Diagnostic):
    """A configuration of another tool asks for something that peftc does not do.

    Nothing is ignored: a setting that changes what the model computes, and that is
    unknown here, would give another model without a word.

    Fix: merge the adapter with the tool that wrote it.
    """

    code: ClassVar[str] = "PEFT733"
    title: ClassVar[str] = "a setting that cannot be imported"
    label: ClassVar[str] = "`{setting}` is {value} in `{path}`"
    notes: ClassVar[tuple[str, ...]] = ("{reason}",)
    exit_code: ClassVar[int] = 3
    path: str
    setting: str
    value: str
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class NeedsBase(Diagnostic):
    """A format holds values of the base, which an adapter of peftc does not.

    Hugging Face PEFT stores a whole module that is trained; peftc stores a difference.

    Fix: name the base, `peftc export ADAPTER -o DIR --to peft --model MODEL`, or export
    from the compiled model, `model.peftc.export(folder, to="peft")`.
    """

    code: ClassVar[str] = "PEFT734"
    title: ClassVar[str] = "the base is needed"
    label: ClassVar[str] = "{what}"
    help: ClassVar[str] = "`--model MODEL` names the base"
    what: str


@dataclass(frozen=True, kw_only=True)
class UnknownForm(Diagnostic):
    """An adapter is to be exported to a format that there is not.

    Adapters go out as `peftc`, `peft` and `portable`, whole tuned models as programs,
    `pt2` and `aoti`; docs/exchange.md and docs/serving.md say what each is for.

    Example: `peftc export ADAPTER -o DIR --to gguf`.

    Fix: one of those; converters to GGUF read what `--to portable` writes.
    """

    code: ClassVar[str] = "PEFT735"
    title: ClassVar[str] = "unknown format"
    label: ClassVar[str] = "`{form}` is not one of {known}"
    help: ClassVar[str] = "{hint}"
    exit_code: ClassVar[int] = 2
    form: str
    known: str
    hint: str = ""
