"""What a type of PEFT is here, and what goes to and comes from its files.

In: nothing.  Out: `Tuner`, the correspondence of one type both ways; `Written`, the
content of a folder; `Draft`, what a folder means for a model; `Piece`, the part of it
that is about one module.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import torch

    from peftc.exchange.applied import Applied, Given, Read
    from peftc.exchange.folder import Folder
    from peftc.plan.types import Knob, Plan
    from peftc.view import ModelView

    Fill: TypeAlias = Callable[[Plan, Read], Mapping[str, torch.Tensor]]
    """Gives the tensors of a plan by their paths; reads the base where it has to."""

_MODULE = re.compile(r"[\w.-]+")

PREFIX = "base_model.model."
"""What PEFT's names of tensors begin with, before the path of a module."""


@dataclass(frozen=True, eq=False)
class Written:
    """The content of a folder of PEFT."""

    config: Mapping[str, Any]
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Piece:
    """What a folder says about one module: a method, its knobs, and its tensors by the
    names in the method's definition."""

    module: str
    method: str
    knobs: tuple[tuple[str, Knob], ...]
    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    whole: bool = False
    """The tensors are trained parameters, and the method's are what they differ by."""


@dataclass(frozen=True, eq=False)
class Draft:
    """What a folder means for a model: a spec, and what fills a plan of it."""

    spec: str
    fill: Fill


@dataclass(frozen=True)
class Tuner:
    """One type of PEFT: the methods that it has, and both directions.

    `write` gets all methods of a spec that are of this type, `read` a folder of it.
    """

    type: str
    methods: tuple[str, ...]
    write: Callable[[Given, Sequence[Applied]], Written]
    read: Callable[[Folder, ModelView], Draft]
    definitions: str = ""
    """Methods that the type has and the library has not, as text."""


def by_module(applied: Iterable[Applied]) -> Mapping[str, list[Applied]]:
    """Methods by the module whose weight they are at."""
    found: dict[str, list[Applied]] = {}
    for one in applied:
        found.setdefault(one.site.owner, []).append(one)
    return found


def alone(
    applied: Iterable[Applied], form: str, *, transposed: bool = True
) -> Mapping[str, Applied]:
    """Methods by module, where each is at a whole weight and there is no other.

    With `transposed`, weights that are stored [in, out] are taken as well.

    Raises:
        PeftcError: PEFT730 for the first that is not.
    """
    found: dict[str, Applied] = {}
    for one in applied:
        site = one.site
        if site.rows is not None or site.experts:
            part = "one of many experts" if site.experts else "rows of a fused weight"
            raise one.refuse(form, f"it is at {part}, and there is none for a part")
        if site.transposed and not transposed:
            raise one.refuse(form, "it takes no weights that are stored transposed")
        if site.owner in found:
            raise one.refuse(form, f"`{site.owner}` has one already")
        found[site.owner] = one
    return found


def checked(folder: Folder, module: str) -> str:
    """The path of a module that is to stand in the text of a spec.

    Raises:
        PeftcError: PEFT732 if it is no path.
    """
    if not _MODULE.fullmatch(module):
        raise folder.damaged(f"`{module[:80]}` is no path of a module")
    return module


def modules_of(
    folder: Folder, names: Mapping[str, str], optional: Iterable[str] = ()
) -> Mapping[str, dict[str, torch.Tensor]]:
    """The tensors of a folder by module, under our names; `names` gives ours of PEFT's.

    Raises:
        PeftcError: PEFT732 if a tensor is of no known name, or one is missing.
    """
    found: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in folder.tensors.items():
        ending = next((n for n in names if key.endswith(f".{n}")), None)
        if ending is None or not key.startswith(PREFIX):
            raise folder.damaged(f"`{key}` is not a tensor of {folder.type}")
        module = checked(folder, key[len(PREFIX) : -len(ending) - 1])
        found.setdefault(module, {})[names[ending]] = tensor
    wanted = {*names.values()} - {*optional}
    for module, tensors in found.items():
        if missing := wanted - tensors.keys():
            theirs = next(n for n, ours in names.items() if ours in missing)
            raise folder.damaged(f"`{module}` lacks `{theirs}`")
    if not found:
        raise folder.damaged("it holds no tensors")
    return found


def targets(modules: Iterable[str], given: Given) -> list[str]:
    """Names that mean exactly these modules of a base to PEFT: `q_proj` for all that
    are called so, or a whole path."""
    wanted = {*modules}
    paths = {path for name in given.shapes for path in _around(name)}
    found = set()
    for module in wanted:
        name = module.rpartition(".")[2]
        meant = {path for path in paths if path == name or path.endswith(f".{name}")}
        found.add(name if meant <= wanted and paths else module)
    return sorted(found)


def _around(name: str) -> Iterator[str]:
    """The modules that a parameter is in."""
    while name := name.rpartition(".")[0]:
        yield name


def task_of(architecture: str) -> str | None:
    """PEFT's name of what a model is for, where it changes nothing but the wrapper."""
    if architecture.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    conditional = ("ForConditionalGeneration", "ForSeq2SeqLM")
    return "SEQ_2_SEQ_LM" if architecture.endswith(conditional) else None
