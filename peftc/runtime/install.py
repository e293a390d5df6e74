"""Compile: put a plan into a model.

In: a model and a Plan.  Out: the same model object, whose forward runs the plan, and
its handle.  All that can fail is done before the model is touched.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from peftc.diagnostics.core import fail, suggestion
from peftc.diagnostics.runtime import BadInterval, UnknownBackend
from peftc.diagnostics.scale import UnknownEntries
from peftc.plan.print import plan_hash
from peftc.runtime import adapters
from peftc.runtime.backend import RUNNERS
from peftc.runtime.base_shards import with_shards
from peftc.runtime.bind import check_inside, layout
from peftc.runtime.codes import encode
from peftc.runtime.entry import Entry, SubEntry
from peftc.runtime.evaluate import evaluations
from peftc.runtime.fit import check_fit
from peftc.runtime.generating import steps
from peftc.runtime.handle import Handle
from peftc.runtime.hub import PushToHub
from peftc.runtime.layers import (
    ENTRIES,
    LAYERS,
    MODEL,
    Kin,
    check_layers,
    likeness,
    units,
)
from peftc.runtime.names import CHILD
from peftc.runtime.needed import add_marks
from peftc.runtime.parameters import attach
from peftc.runtime.parts import parts
from peftc.runtime.recipe import GRAPHS, Captures, Recipe
from peftc.runtime.removal import INPUT_GRADIENTS, do_nothing, quiet_input_gradients
from peftc.runtime.resume import add_check
from peftc.runtime.saving import ABSENT, NOT_SAVED, SavePretrained, not_saved
from peftc.runtime.side import connect
from peftc.runtime.storing import NOT_SENT, forget_states, not_sent, stored_base
from peftc.runtime.tripwire import Switch, add_tripwires

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from typing_extensions import Unpack

    from peftc.pipeline import Manager
    from peftc.plan.types import Plan
    from peftc.runtime.backend import Code
    from peftc.runtime.state import Adapter


class Options(TypedDict, total=False):
    """What `install` may be told beyond the plan.

    `backend` runs the rewritten graph (a key of `backend.RUNNERS`); `dynamic` is
    torch.compile's; `limit` is how many graphs one entry may have; `adapter` gives
    values to the added tensors, if it was made on this base or `any_base` is set;
    `around` wraps what runs each graph; `keep_base` keeps the values of weights that
    are stored in codes, on the CPU, so that `remove` can put them back; `entries`
    says what is captured, one of `layers.ENTRIES`; of `checkpoint_every` blocks one is
    checkpointed; `shard_base` keeps a part of the base in each process.
    """

    backend: str
    dynamic: bool | None
    limit: int
    adapter: Adapter | None
    any_base: bool
    around: Callable[[Code], Code] | None
    keep_base: bool
    checkpoint_every: int
    entries: str
    shard_base: bool


def install(
    model: nn.Module,
    plan: Plan,
    spec: str,
    manager: Manager,
    **options: Unpack[Options],
) -> Handle:
    """Put a plan into a model; `spec` is the text it was made from.

    Raises:
        PeftcError: the model is then as it was.
    """
    if options.get("shard_base", False):
        plan = with_shards(plan, model)
    recipe = _recipe(plan, manager, options)
    check_fit(model, plan)
    entries = _entries(model, recipe, options.get("entries", MODEL))
    adapter, any_base = options.get("adapter"), options.get("any_base", False)
    if adapter is not None:
        adapters.check(adapter, model, plan, any_base=any_base)
    base = stored_base(model, plan, keep=options.get("keep_base", False))
    codes = encode(model, plan.stores)
    known = adapter.tensors if adapter is not None else {}
    attached = attach(model, plan, evaluations(model, plan, codes, known), codes)
    if adapter is not None:
        adapters.copy_into(model, adapter)
    connect(model, plan, entries)
    handle = Handle(model, spec, attached, entries, base)
    handle.any_base = adapter is not None and (any_base or adapter.any_base)
    _take_over(model, handle)
    return handle


def _recipe(plan: Plan, manager: Manager, options: Options) -> Recipe:
    backend = options.get("backend", "eager")
    if backend not in RUNNERS:
        known, hint = ", ".join(RUNNERS), suggestion(backend, RUNNERS)
        raise fail(UnknownBackend(backend=backend, known=known, hint=hint))
    dynamic, limit = options.get("dynamic"), options.get("limit", GRAPHS)
    around, every = options.get("around"), _interval(options)
    return Recipe(plan, manager, backend, dynamic, limit, around, every)


def _interval(options: Options) -> int:
    every = options.get("checkpoint_every", 0)
    problem = ""
    if not isinstance(every, int) or every < 0:
        problem = "it is a whole number from 0"
    elif every and options.get("entries", MODEL) != MODEL:
        problem = "each layer has a graph of its own"
    if problem:
        raise fail(BadInterval(given=str(every), problem=problem))
    return every


def _entries(model: nn.Module, recipe: Recipe, kind: str) -> tuple[Entry, ...]:
    if kind not in ENTRIES:
        raise fail(UnknownEntries(name=kind, known=", ".join(ENTRIES)))
    return (_of_layers if kind == LAYERS else _of_model)(model, recipe)


def _of_layers(model: nn.Module, recipe: Recipe) -> tuple[Entry, ...]:
    """An entry for each layer with sites; those that are alike are kin."""
    check_layers(recipe.plan)
    switch, captures = Switch(), Captures()
    kin: dict[str, Kin] = defaultdict(Kin)
    entries = []
    for path in units(model, recipe.plan):
        own = layout(recipe.plan, "", model, path)
        signature = likeness(model, recipe.plan, own)
        told = replace(own, signature=signature, kin=kin[signature])
        check_inside(told)
        kin[signature].size += 1
        entries.append(Entry(model, told, recipe, switch, captures))
    return tuple(entries)


def _of_model(model: nn.Module, recipe: Recipe) -> tuple[Entry, ...]:
    """The model's entry, and those of the models inside it."""
    switch, captures, signature = Switch(), Captures(), plan_hash(recipe.plan)
    whole = layout(recipe.plan, signature, model)
    entries = [Entry(model, whole, recipe, switch, captures)]
    for path in parts(model):
        part = layout(recipe.plan, signature, model, path)
        if part.reads:
            entries.append(SubEntry(model, part, recipe, switch, captures))
    return tuple(entries)


def _take_over(model: nn.Module, handle: Handle) -> None:
    """Everything that changes the behaviour of the instance."""
    stored = {s.weight.rpartition(".")[0] for s in handle.plan.stores}
    beside = {site.owner for site in handle.sites if site.kind == "side"}
    owners = tuple(o for o in handle.attached.owners if o not in beside)
    # A head that has an entry for itself is called, and its entry runs.
    entered = {entry.layout.within for entry in handle.entries}
    wired = tuple(owner for owner in owners if owner not in entered)
    add_tripwires(model, wired, handle.switch, stored)
    forget_states(model, handle.plan.stores)
    add_marks(model, owners)
    add_check(handle)
    for entry in handle.entries:
        entry.module.__dict__["forward"] = entry
    quiet_input_gradients(model)
    own: dict[str, Any] = {CHILD: handle}
    if hasattr(model, "save_pretrained"):
        own["save_pretrained"] = SavePretrained(handle)
        own[NOT_SAVED] = not_saved(handle)
    if hasattr(model, "push_to_hub"):
        own["push_to_hub"] = PushToHub(handle)
    if hasattr(model, INPUT_GRADIENTS):
        own[INPUT_GRADIENTS] = do_nothing
    if handle.plan.stores:
        own[NOT_SENT] = not_sent(model, handle.plan.stores)
    own |= steps(model, handle.entries[0].inserter)
    handle.own = {name: model.__dict__.get(name, ABSENT) for name in own}
    model.__dict__ |= own
