"""What adapters make of the tensors of a base, one after the other.

In: adapters that were read, the model (its values do not count), where the base's
tensors are read, and how several adapters are added up.  Out: the new value of each
tensor when it is asked for; one weight is in memory at a time.  Every tensor is
compared on its way with what the adapters say of their base.

A weight that a plan keeps in codes becomes what they decode to, with the methods in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from peftc.diagnostics.artefact import OtherBase
from peftc.diagnostics.core import fail
from peftc.diagnostics.merging import OtherNames, WrongSum
from peftc.diagnostics.runtime import NoPlaceForBias
from peftc.runtime import merge
from peftc.runtime.adapters import base_told, expected, plan_of
from peftc.runtime.codes import decode, encode_one
from peftc.runtime.evaluate import wide
from peftc.runtime.fingerprint import Fingerprint, told
from peftc.runtime.fit import check_fit
from peftc.runtime.parameters import drawn, places
from peftc.runtime.state import check_finite, check_tensors
from peftc.sites.capture import ties

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from peftc.merging.combine import Sum
    from peftc.plan.types import StoredWeight
    from peftc.runtime.merge import Change
    from peftc.runtime.state import Adapter


@dataclass(frozen=True)
class Choices:
    """What is asked for beside merging.

    `any_base`: values of the base may be others; `recode`: weights that were kept in
    codes are rounded to what codes can say; `untie`: tied weights are written apart.
    """

    any_base: bool = False
    recode: bool = False
    untie: bool = False


@dataclass
class Told:
    """What merging has done: weights that changed, and of each the norm of what
    rounding to the file's type or to codes lost, as a part of that of the weight."""

    lost: dict[str, float] = field(default_factory=dict)
    stored: bool = False
    """Whether the base was kept in codes."""


class Source(Protocol):
    """Where the base's tensors are read, by the model's names of them."""

    @property
    def paths(self) -> Iterable[str]:
        """The names of all."""

    def __contains__(self, path: str) -> bool: ...

    def read(self, path: str) -> torch.Tensor:
        """One tensor."""


class Part:
    """What one adapter makes of a base."""

    def __init__(self, adapter: Adapter, model: nn.Module) -> None:
        """Derive all changes.

        Raises:
            PeftcError: if the adapter does not fit the model, or does not merge.
        """
        self.plan = plan_of(adapter)
        check_fit(model, self.plan)
        check_tensors(adapter, expected(model, self.plan))
        self.base = base_told(adapter)
        self.changes: Mapping[str, Sequence[Change]] = merge.derive(model, self.plan)
        self.stores = {stored.weight: stored for stored in self.plan.stores}
        held = places(self.plan).items()
        stored = {one: adapter.tensors[path] for path, every in held for one in every}
        self.tensors = {**stored, **drawn(self.plan, model)}
        """The added tensors by every path they are at."""


class Merging:
    """One merge under way."""

    def __init__(
        self,
        model: Any,
        checkpoint: Source,
        parts: Sequence[Part],
        how: Sum,
        choices: Choices,
    ) -> None:
        how.check(len(parts))
        self.model, self.checkpoint = model, checkpoint
        self.parts, self.how, self.choices = parts, how, choices
        self.ties = ties(model)
        self.shapes = {n: tuple(t.shape) for n, t in model.state_dict().items()}
        weights = dict.fromkeys(w for part in parts for w in part.changes)
        self.groups = {w: w for w in weights}
        changes = ((w, c) for p in parts for w, cs in p.changes.items() for c in cs)
        biases = {merge.bias_path(c): w for w, c in changes}
        self.groups |= {path: w for path, w in biases.items() if path}
        self.stores = self._stores()
        self.told = Told(stored=bool(self.stores))
        self._ready: dict[str, torch.Tensor] = {}

    def _stores(self) -> dict[str, StoredWeight]:
        """How weights are kept in codes, which all adapters have to agree on."""
        found = self.parts[0].stores
        if any(part.stores != found for part in self.parts):
            problem = "their bases are kept in codes of several kinds"
            raise fail(WrongSum(problem=problem, hint="merge each into a base first"))
        return found

    # --- checking ---------------------------------------------------------------------

    def check(self) -> None:
        """Refuse, before anything is written, what could not be read again."""
        for path in self.groups:
            if path not in self.checkpoint and path not in self.shapes:
                name = type(self.model).__name__
                raise fail(NoPlaceForBias(bias=path, architecture=name))
        missing = [p for p in self._needed() if p not in self.checkpoint]
        if missing:
            raise fail(OtherNames(problem=f"its files have no tensor `{missing[0]}`"))

    def _needed(self) -> set[str]:
        """What the base has by its own or by one of its other names."""
        tied, paths = self.ties, set(self.checkpoint.paths)
        wanted = set(self.parts[0].base.tensors) - set(self.groups)
        wanted |= {*self.groups.values()}
        return {p for p in wanted if not paths & {p, *tied.get(p, ())}}

    def _verify(self, path: str, tensor: torch.Tensor) -> None:
        """Compare a tensor of the base with what the adapters say of it."""
        if self.choices.any_base:
            return
        found = told(tensor)
        for part in self.parts:
            if part.base.tensors.get(path, found) != found:
                made_on = Fingerprint("", {path: part.base.tensors[path]})
                problem = made_on.difference(Fingerprint("", {path: found}))
                raise fail(OtherBase(problem=problem))

    # --- values -----------------------------------------------------------------------

    def value(self, path: str) -> torch.Tensor:
        """What a tensor of the base becomes.

        Raises:
            PeftcError: PEFT625 if it was another when an adapter was made.
        """
        if path not in self.groups:
            tensor = self.checkpoint.read(self.source(path))
            self._verify(path, tensor)
            return tensor
        if path not in self._ready:
            self._ready |= self._changed(self.groups[path])
        return self._ready.pop(path)

    def source(self, path: str) -> str:
        """The name by which the files have a tensor that may have several."""
        names = (path, *self.ties.get(path, ()))
        return next(name for name in names if name in self.checkpoint)

    def _changed(self, weight: str) -> dict[str, torch.Tensor]:
        """A weight and its bias with the methods in them, in the files' types."""
        read: dict[str, torch.Tensor] = {}
        each = [self._by(part, weight, read) for part in self.parts]
        found = {}
        for path in dict.fromkeys(path for one in each for path in one):
            found[path] = self._rounded(path, self._sum(path, each, read), read)
        check_finite(found)
        return found

    def _by(
        self, part: Part, weight: str, read: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """What one adapter makes of a weight and its bias, wide."""

        def value(path: str) -> torch.Tensor:
            if path in part.tensors:
                return part.tensors[path]
            if path not in read:
                read[path] = self._base(path)
            return read[path]

        if weight not in part.changes:
            return {weight: value(weight).to(wide(value(weight).dtype))}
        return merge.changed(self.model, weight, part.changes[weight], value)

    def _base(self, path: str) -> torch.Tensor:
        """A parameter of the base; what its codes say, if it is kept in codes."""
        tensor = self.checkpoint.read(path)
        self._verify(path, tensor)
        return self._recoded(path, tensor) if path in self.stores else tensor

    def _recoded(self, path: str, tensor: torch.Tensor) -> torch.Tensor:
        stored = self.stores[path]
        return decode(stored, encode_one(tensor, stored))

    def _sum(
        self,
        path: str,
        each: Sequence[Mapping[str, torch.Tensor]],
        read: Mapping[str, torch.Tensor],
    ) -> torch.Tensor:
        if len(each) == 1 and self.how.weights == (1.0,):
            return each[0][path]
        first = next(one[path] for one in each if path in one)
        base = read[path].to(first.dtype) if path in read else torch.zeros_like(first)
        deltas = [one.get(path, base) - base for one in each]
        return base + self.how.of(deltas, path)

    def _rounded(
        self, path: str, value: torch.Tensor, read: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        weight = read[self.groups[path]]
        rounded = value.to(weight.dtype)
        if self.choices.recode and path in self.stores:
            rounded = self._recoded(path, rounded)
        norm = value.norm()
        if path in self.checkpoint and norm:
            self.told.lost[path] = float(
                (rounded.to(value.dtype) - value).norm() / norm
            )
        return rounded
