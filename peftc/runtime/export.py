"""An adapter as it is given away: what training needs and running does not is left out.

In: an adapter file's content.  Out: one from whose axes the places are cut that
training has set to zero (`peftc.plan.shrink`), and whose plan has the parts folded that
depend on trained tensors alone (`peftc.plan.fold`), with their values.  No model is
needed.  It gives what the adapter gave, up to the rounding of what was computed
beforehand.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from peftc.expr.evaluate import evaluate, wide
from peftc.expr.ir import Leaf, walk
from peftc.passes import PLAN_PIPELINE
from peftc.pipeline import Manager, load
from peftc.plan.fold import fold
from peftc.plan.print import plan_hash, plan_text
from peftc.plan.shrink import shrink, vectors
from peftc.runtime.adapters import plan_of
from peftc.runtime.evaluate import by_expert
from peftc.runtime.initial import initial_value
from peftc.runtime.names import tensor_path
from peftc.runtime.parameters import added
from peftc.runtime.state import Expected, check_tensors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.plan.shrink import Vector
    from peftc.plan.types import Plan
    from peftc.plan.unwrap import Part
    from peftc.runtime.state import Adapter


def exported(adapter: Adapter) -> Adapter:
    """The adapter to give away; the same one if nothing of it folds.

    Raises:
        PeftcError: PEFT622 if its plan cannot be read, PEFT623 if its tensors are
            others than the plan's, PEFT322 if zeros cannot be cut.
    """
    whole = plan_of(adapter)
    _check(adapter, whole)
    adapter, plan = _cut(adapter, whole)
    folding = fold(plan)
    if not folding.parts and plan is whole:
        return adapter
    new = Manager(load(PLAN_PIPELINE)).refine(replace(folding.plan, memory=None))
    tensors = _tensors(adapter, plan, folding.parts)
    kept = {path: tensors[path] for _, t, path in added(new) if not t.drawn}
    return replace(adapter, plan=plan_text(new), plan_hash=plan_hash(new), tensors=kept)


def _cut(adapter: Adapter, plan: Plan) -> tuple[Adapter, Plan]:
    """Leave out what trained vectors have set to zero, place by place."""
    found = {vector.key: _places(adapter, vector) for vector in vectors(plan)}
    kept = {k: p for k, (p, size) in found.items() if len(p) < size}
    shrinking = shrink(plan, kept)
    tensors = dict(adapter.tensors)
    for cut in shrinking.cuts:
        path = tensor_path(cut.rewrite.site, cut.tensor)
        places = torch.tensor(cut.kept, device=tensors[path].device)
        tensors[path] = tensors[path].index_select(cut.axis, places).contiguous()
    return replace(adapter, tensors=tensors), shrinking.plan


def _places(adapter: Adapter, vector: Vector) -> tuple[list[int], int]:
    """The places that an expert or the site needs, at least one, and how many are."""
    value = adapter.tensors[tensor_path(vector.rewrite.site, vector.tensor)]
    lives = (value != 0).reshape(-1, value.shape[-1]).any(0)
    return lives.nonzero().flatten().tolist() or [0], value.shape[-1]


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
        given |= _drawn(part, plan.seed, dtype)
        wider = {name: wide(tensor) for name, tensor in given.items()}
        constants = torch.promote_types(dtype, torch.float32)
        each = [
            evaluate([part.node], one, part.sizes, constants)[0]
            for one in by_expert(part.rewrite, wider)
        ]
        apart = part.rewrite.site.experts and not part.tensor.shared
        value = torch.stack(each) if apart else each[0]
        found[tensor_path(site, part.tensor)] = value.to(dtype).contiguous()
    return found


def _drawn(part: Part, seed: int, dtype: torch.dtype) -> Mapping[str, torch.Tensor]:
    """The tensors of a part's site that are in no file: they are drawn again."""
    key, nodes = part.rewrite.site.key, walk(part.node)
    needed = {node.name for node in nodes if isinstance(node, Leaf)}
    drawn = (t for t in part.rewrite.tensors if t.drawn and t.name in needed)
    return {t.name: initial_value(t, seed, key, dtype) for t in drawn}
