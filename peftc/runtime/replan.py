"""Another plan for a compiled model, while it stays what it is.

In: a handle, a plan with other sizes, and values for tensors.  Out: the model with a
new handle.  What the plans have in common keeps its values; captures begin anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from peftc.diagnostics.core import fail
from peftc.diagnostics.masks import SizesFixed
from peftc.passes import PLAN_PIPELINE
from peftc.pipeline import Manager, load
from peftc.runtime import adapters
from peftc.runtime.install import install
from peftc.runtime.parameters import added

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.plan.types import Plan
    from peftc.runtime.handle import Handle


def replan(
    handle: Handle, plan: Plan, values: Mapping[str, torch.Tensor] | None = None
) -> Handle:
    """Install another plan in the place of a handle's.

    Args:
        plan: as `plan.resize` gives it; it is refined here.
        values: by path, for tensors whose shapes have changed; others keep what they
            hold, and new ones their initial values.

    Raises:
        PeftcError: PEFT334 if weights are stored in codes.
    """
    if handle.plan.stores:
        raise fail(SizesFixed(count=len(handle.plan.stores)))
    model, recipe = handle.model, handle.recipe
    kept = {
        path: t.detach() for path, t in adapters.tensors(model, handle.plan).items()
    }
    handle.remove()
    refined = Manager(load(PLAN_PIPELINE)).refine(plan)
    new = install(
        model,
        refined,
        handle.spec,
        recipe.manager,
        backend=recipe.backend,
        dynamic=recipe.dynamic,
        limit=recipe.limit,
        around=recipe.around,
    )
    new.any_base, new.unattended = handle.any_base, handle.unattended
    _fill(model, refined, {**kept, **(values or {})})
    return new


@torch.no_grad()
def _fill(model: nn.Module, plan: Plan, values: Mapping[str, torch.Tensor]) -> None:
    for _, tensor, path in added(plan):
        value = values.get(path)
        if value is not None and tuple(value.shape) == tensor.shape:
            adapters.tensor_at(model, path).copy_(value)
