"""A spec for what a folder says of each module.

In: pieces and a ModelView.  Out: `Draft`: a text that applies their methods at their
modules, and what puts their tensors into a plan of it.  Modules that differ in the
number of their layer alone are written as one glob, if it means no other module.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from peftc.exchange.tuner import Draft
from peftc.exchange.whole import difference
from peftc.runtime.parameters import added

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TypeAlias

    import torch

    from peftc.exchange.applied import Read
    from peftc.exchange.folder import Folder
    from peftc.exchange.tuner import Fill, Piece
    from peftc.plan.types import Knob, Plan
    from peftc.view import ModelView, Site

    Place: TypeAlias = tuple[str, str, str]
    """A module, a method there, and the name of one of its tensors."""

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def draft(
    folder: Folder, pieces: Sequence[Piece], view: ModelView, definitions: str = ""
) -> Draft:
    """The pieces of a folder as a spec for a model; `definitions` stand before it."""
    owners = list(dict.fromkeys(site.owner for site in view.sites))
    order = {owner: number for number, owner in enumerate(owners)}
    pieces = sorted(pieces, key=lambda one: order.get(one.module, len(order)))
    groups: dict[tuple[str, tuple[tuple[str, Knob], ...]], list[str]] = {}
    for piece in pieces:
        groups.setdefault((piece.method, piece.knobs), []).append(piece.module)
    calls = (
        call(method, globs(modules, owners), knobs)
        for (method, knobs), modules in groups.items()
    )
    return Draft(definitions + "\n+ ".join(calls) + "\n", filling(folder, pieces))


def filling(folder: Folder, pieces: Sequence[Piece]) -> Fill:
    """What puts the tensors of pieces into a plan that applies their methods."""
    values = {
        (piece.module, piece.method, name): (tensor, piece.whole)
        for piece in pieces
        for name, tensor in piece.tensors.items()
    }

    def fill(plan: Plan, read: Read) -> Mapping[str, torch.Tensor]:
        found = {key: place for key, place in _paths(plan) if key in values}
        if lost := values.keys() - found.keys():
            module, _, name = min(lost)
            raise folder.damaged(f"`{module}` of the model takes no `{name}`")
        tensors = {}
        for key, (path, site, number) in found.items():
            value, whole = values[key]
            base = (site.weight, site.bias)[number] if whole else ""
            if whole and read(base).shape != value.shape:
                raise folder.damaged(f"`{base}` has another shape in it")
            tensors[path] = difference(site, base, value, read) if whole else value
        return tensors

    return fill


def _paths(plan: Plan) -> Iterator[tuple[Place, tuple[str, Site, int]]]:
    """Every tensor of a plan: the module, method and name; and where it is stored, its
    site, and which one of the method it is."""
    stored = {rewrite.storage(tensor): path for rewrite, tensor, path in added(plan)}
    for rewrite in plan.rewrites:
        for one in rewrite.applications:
            for number, tensor in enumerate(one.tensors):
                name = tensor.name.removeprefix(f"{one.instance}.")
                key = (rewrite.site.owner, one.method, name)
                yield key, (stored[rewrite.storage(tensor)], rewrite.site, number)


def call(
    method: str, targets: Iterable[str], knobs: Iterable[tuple[str, Knob]] = ()
) -> str:
    """One call of a spec: `lora("a.*", r=4)`; `targets` are written as they are."""
    given = (f"{name}={_text(value)}" for name, value in knobs)
    return f"{method}({', '.join((*targets, *given))})"


def _text(value: Knob) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def globs(modules: Sequence[str], owners: Sequence[str]) -> list[str]:
    """Quoted globs that mean exactly these modules of all `owners`."""
    wanted, found = {*modules}, dict[str, None]()
    for module in modules:
        glob = _NUMBER.sub("*", module)
        meant = {owner for owner in owners if fnmatchcase(owner, glob)}
        found[f'"{glob if meant <= wanted else module}"'] = None
    return list(found)
