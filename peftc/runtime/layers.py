"""A model whose layers are captured one by one, its own forward left in Python.

In: a model and a plan.  Out: the modules that get an entry of their own, and `Kin`,
what those share whose part of the plan is alike.  Hooks that stand before a layer, as
those of a sharded model that gathers one layer at a time, then stay outside of what is
captured; and all equal layers of a model run one graph.

Nothing binds the tensors of one layer to another: see `bind.inside`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

from torch import nn

from peftc.diagnostics.core import Diagnostics
from peftc.diagnostics.scale import NeedsWholeModel
from peftc.plan.print import plan_hash

if TYPE_CHECKING:
    import types
    from collections.abc import Callable

    from peftc.plan.types import Plan, Rewrite, StoredWeight
    from peftc.runtime.bind import Layout
    from peftc.view import Site

MODEL, LAYERS = "model", "layers"
ENTRIES = (MODEL, LAYERS)
"""What can have entries: the model and the models in it, or its layers."""

_WHY = {
    "side": "a network beside the backbone reads many layers",
    "input": "rows among the tokens are put in before the first layer",
}
"""Why sites of a kind need the forward of the whole model."""

_numbers = count()
"""Of the codes made in this process."""


class Kin:
    """What entries share whose parts of the plan are alike: the code they run.

    Dynamo keeps graphs by code.  A copied or stored model has a code of its own.
    """

    def __init__(self) -> None:
        self.size = 0
        """How many entries there are."""
        self._name = f"peftc_layer_{next(_numbers)}"
        self._code: types.CodeType | None = None

    def code(self, function: Callable[..., Any]) -> types.CodeType:
        """The function's code under a name of its own, made once."""
        if self._code is None:
            self._code = function.__code__.replace(co_name=self._name)
        return self._code

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.size,)


def _again(size: int) -> Kin:
    kin = Kin()
    kin.size = size
    return kin


def check_layers(plan: Plan) -> None:
    """Raise `PeftcError` (PEFT615) for all that one layer alone cannot be given."""
    errors = Diagnostics()
    for rewrite in plan.rewrites:
        why = _WHY.get(rewrite.site.kind, "")
        if rewrite.start:
            why = "it moves positions, which are looked up before the first layer"
        if why:
            errors.add(NeedsWholeModel(site=rewrite.site.place, why=why))
    errors.check()


def units(model: nn.Module, plan: Plan) -> tuple[str, ...]:
    """The paths of the modules that get an entry, in the order of the plan.

    A layer is a member of a list of modules, the outermost that has a forward.  Of what
    is in no layer it is the largest module that holds no layers: a head as a whole.
    """
    stored = (weight.weight.rpartition(".")[0] for weight in plan.stores)
    owners = [*(rewrite.site.owner for rewrite in plan.rewrites), *stored]
    return tuple(dict.fromkeys(_unit(model, owner) for owner in owners))


def _unit(model: nn.Module, owner: str) -> str:
    """The module that gets the entry for what one module owns."""
    names = owner.split(".")
    around = [".".join(names[: end + 1]) for end in range(len(names))]
    return next((path for path in around if _is_unit(model, path)), owner)


def _is_unit(model: nn.Module, path: str) -> bool:
    module = model.get_submodule(path)
    if type(module).forward is nn.Module.forward:  # it is called by its parts alone
        return False
    if isinstance(model.get_submodule(path.rpartition(".")[0]), nn.ModuleList):
        return True
    return not any(isinstance(one, nn.ModuleList) for one in module.modules())


def likeness(model: nn.Module, plan: Plan, part: Layout) -> str:
    """Equal for two layers if and only if their parts of the plan are alike.

    All that a rewrite may depend on is in it, told relative to the layer.
    """
    sites = frozenset(part.sites)
    base = {read.path for read in part.reads if not read.site}
    own = replace(
        plan,
        rewrites=tuple(
            _relative(r, part.within) for r in plan.rewrites if r.site.key in sites
        ),
        stores=tuple(_moved(s, part.within) for s in plan.stores if s.weight in base),
        memory=None,
    )
    kind = type(model.get_submodule(part.within))
    return f"{kind.__module__}.{kind.__qualname__}:{plan_hash(own)}"


def _relative(rewrite: Rewrite, within: str) -> Rewrite:
    return replace(rewrite, site=_relative_site(rewrite.site, within))


def _relative_site(site: Site, within: str) -> Site:
    paths = ("key", "owner", "weight", "bias", "tied")
    told: dict[str, Any] = {n: relative(getattr(site, n), within) for n in paths}
    return replace(site, layer=None, **told)


def _moved(stored: StoredWeight, within: str) -> StoredWeight:
    return replace(stored, weight=relative(stored.weight, within))


def relative(path: str, within: str) -> str:
    """A path as seen from a module; one that leads elsewhere as it is."""
    return path.removeprefix(f"{within}.")
