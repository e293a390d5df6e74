"""An adapter as it is given away: what training needs and running does not is left out.

In: an adapter file's content.  Out: one whose plan has the parts folded that depend on
trained tensors alone (`peftc.plan.fold`), with their values.  No model is needed.  It
gives what the adapter gave, up to the rounding of what was computed beforehand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from peftc.expr.evaluate import evaluate, wide
from peftc.passes import PLAN_PIPELINE
from peftc.pipeline import Manager, load
from peftc.plan.fold import fold
from peftc.plan.print import plan_hash, plan_text
from peftc.runtime.adapters import plan_of
from peftc.runtime.names import tensor_path
from peftc.runtime.parameters import added
from peftc.runtime.state import Expected, check_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.plan.fold import Part
    from peftc.plan.types import Plan
    from peftc.runtime.state import Adapter


def exported(adapter: Adapter) -> Adapter:
    """The adapter to give away; the same one if nothing of it folds.

    Raises:
        PeftcError: PEFT622 if its plan cannot be read, PEFT623 if its tensors are
            others than the plan's.
    """
    plan = plan_of(adapter)
    _check(adapter, plan)
    folding = fold(plan)
    if not folding.parts:
        return adapter
    new = Manager(load(PLAN_PIPELINE)).refine(replace(folding.plan, memory=None))
    tensors = _tensors(adapter, plan, folding.parts)
    kept = {path: tensors[path] for _, t, path in added(new) if not t.drawn}
    return replace(adapter, plan=plan_text(new), plan_hash=plan_hash(new), tensors=kept)


def _check(adapter: Adapter, plan: Plan) -> None:
    """Refuse tensors that are not the plan's; their types are the base's affair."""
    wanted = {}
    for _, tensor, path in added(plan):
        if tensor.drawn:
            continue
        known = adapter.tensors.get(path)
        dtype = torch.float32 if known is None else known.dtype
        wanted[path] = Expected(torch.Size(tensor.shape), dtype)
    check_tensors(adapter, wanted)


def _tensors(
    adapter: Adapter, plan: Plan, parts: tuple[Part, ...]
) -> Mapping[str, torch.Tensor]:
    """The tensors of an adapter by path, and those of its folded parts."""
    paths = {r.storage(t): path for r, t, path in added(plan)}
    found = dict(adapter.tensors)
    for part in parts:
        site = part.rewrite.site
        given = {
            t.name: adapter.tensors[paths[part.rewrite.storage(t)]]
            for t in part.rewrite.tensors
            if not t.drawn
        }
        dtype = given[part.like].dtype
        wider = {name: wide(tensor) for name, tensor in given.items()}
        constants = torch.promote_types(dtype, torch.float32)
        (value,) = evaluate([part.node], wider, part.sizes, constants)
        found[tensor_path(site, part.tensor)] = value.to(dtype).contiguous()
    return found
