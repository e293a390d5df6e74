"""Between a compiled model and an adapter file.

In: a handle, or a model and an `Adapter` that was read.  Out: the file, or the values
of the adapter in the model, after every check has passed.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from torch import nn

from peftc.diagnostics.artefact import OtherBase, OtherPlan, UnknownFormat
from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.runtime import WrongState
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_hash, plan_text
from peftc.plan.types import stored
from peftc.runtime.base_shards import without_shards
from peftc.runtime.codes import codes_in
from peftc.runtime.essence import difference
from peftc.runtime.evaluate import evaluations
from peftc.runtime.fingerprint import Fingerprint, fingerprint, vocabulary_difference
from peftc.runtime.initial import initial_value
from peftc.runtime.parameters import added, like, stored_dtype
from peftc.runtime.sharding import put, settle, whole
from peftc.runtime.state import Adapter, Expected, check_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peftc.plan.types import Plan
    from peftc.runtime.handle import Handle


def tensors(model: nn.Module, plan: Plan) -> Mapping[str, torch.Tensor]:
    """The added tensors of a model by path that a file holds; a shared one once."""
    found = added(plan)
    return {path: tensor_at(model, path) for _, t, path in found if not t.drawn}


def tensor_at(model: nn.Module, path: str) -> torch.Tensor:
    """The tensor at a path."""
    owner, _, name = path.rpartition(".")
    tensor = getattr(model.get_submodule(owner), name)
    assert isinstance(tensor, torch.Tensor)
    return tensor


def expected(model: nn.Module, plan: Plan) -> Mapping[str, Expected]:
    """What those tensors have to be, whether the model has them yet or not."""
    return {
        path: Expected(
            tensor.shape,
            stored_dtype(tensor, plan.dtype, like(model, rewrite.site).dtype),
        )
        for rewrite, tensor, path in added(plan)
        if not tensor.drawn
    }


def adapter_of(
    handle: Handle, folder: Path, state: Mapping[str, torch.Tensor] | None = None
) -> Adapter:
    """What the handle's adapter file holds.

    The tensors are those of `state` where it has them, which somebody gathered.
    """
    settle(handle.model)
    plan = without_shards(handle.plan)
    here = tensors(handle.model, plan)
    if any(tensor.is_meta for tensor in here.values()):
        raise fail(WrongState(what="a model on the meta device has nothing to save"))
    given = state or {}
    found = {path: whole(given.get(path, tensor)) for path, tensor in here.items()}
    return Adapter(
        folder,
        spec=handle.spec,
        plan=plan_text(plan),
        plan_hash=plan_hash(plan),
        base=base_of(handle, given).text(),
        seed=plan.seed,
        version=version("peftc"),
        any_base=handle.any_base,
        tensors=found,
    )


def base_of(
    handle: Handle, state: Mapping[str, torch.Tensor] | None = None
) -> Fingerprint:
    """Which base a model was compiled from, whatever its weights are kept as."""
    if handle.base:
        return handle.base.fingerprint
    return fingerprint(handle.model, state)


def check(
    adapter: Adapter,
    model: nn.Module,
    plan: Plan,
    *,
    any_base: bool,
    base: Fingerprint | None = None,
) -> None:
    """Refuse an adapter of another plan or base, or with other tensors.

    `base` is the model's fingerprint where its weights do not tell it any more.
    """
    read = plan_of(adapter)
    if problem := difference(plan, read):
        raise fail(OtherPlan(problem=problem))
    if read.seed != plan.seed and any(t.drawn for _, t in stored(plan.rewrites)):
        problem = f"its random tensors come from seed {read.seed}, not {plan.seed}"
        raise fail(OtherPlan(problem=problem))
    check_tensors(adapter, expected(model, plan))
    made_on = base_told(adapter)
    problem = made_on.difference(base or fingerprint(model))
    if problem and not any_base:
        problem = vocabulary_difference(made_on, model) or problem
        raise fail(OtherBase(problem=problem))


def plan_of(adapter: Adapter) -> Plan:
    """The plan in the file, which must be the one that was written."""
    try:
        plan = parse_plan(adapter.plan, "<plan of the adapter>")
    except PeftcError as error:
        raise _unreadable(adapter, f"its plan cannot be read: {error}") from None
    if plan_hash(plan) != adapter.plan_hash:
        raise _unreadable(adapter, "its plan was altered")
    return plan


def base_told(adapter: Adapter) -> Fingerprint:
    """What an adapter says of the base it was made on."""
    try:
        return Fingerprint.parse(adapter.base)
    except (ValueError, RecursionError):
        raise _unreadable(adapter, "the fingerprint of its base is damaged") from None


def _unreadable(adapter: Adapter, problem: str) -> PeftcError:
    return fail(UnknownFormat(path=str(adapter.path), problem=problem))


def copy_into(model: nn.Module, adapter: Adapter) -> None:
    """Put the values into the tensors that are there, so optimizers keep them."""
    settle(model)
    with torch.no_grad():
        for path, value in adapter.tensors.items():
            put(tensor_at(model, path), value)


def first_values(
    model: nn.Module, plan: Plan, known: Mapping[str, torch.Tensor] | None = None
) -> Mapping[str, torch.Tensor]:
    """What the added tensors are when a spec is compiled, by path, on the CPU.

    Those that begin with the values of other adapters have their `known` ones.
    """
    at = evaluations(model, plan, codes_in(model, plan.stores), known)
    return {
        path: initial_value(
            tensor,
            plan.seed,
            rewrite.site.key,
            tensor_at(model, path).dtype,
            at[rewrite.site.key],
        )
        for rewrite, tensor, path in added(plan)
    }
