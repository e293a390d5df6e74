"""Estimate what training the plan holds in memory, part by part."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from peftc.pipeline import Fact, plan_pass
from peftc.plan.types import DTYPE_BYTES, Memory, Plan, stored

if TYPE_CHECKING:
    from peftc.plan.types import AddedTensor, Rewrite

BATCH, TOKENS = 8, 512
ADAM_STATES = 2  # first and second moments, as torch.optim.AdamW keeps them
ADAM_STEP = 4  # its count of steps, a float32 for each tensor


@plan_pass("estimate-memory", requires={Fact.ORDERED}, ensures={Fact.MEMORY_KNOWN})
def estimate_memory(plan: Plan) -> Plan:
    """Bytes of base, added tensors, gradients, AdamW states and added activations.

    rewrite:
        plan  ->  plan with `memory batch=8 tokens=512 base=... parameters=...`

    guards: none.  Activations are those the added operations keep for backward, for a
    stated batch; what the base itself keeps depends on its graph and is not in it.
    """
    added = _added(plan)
    trained = [size for tensor, size in added if tensor.kind == "param"]
    memory = Memory(
        batch=BATCH,
        tokens=TOKENS,
        base=plan.model.bytes - sum(s.dense - s.bytes for s in plan.stores),
        parameters=sum(size for _, size in added),
        gradients=sum(trained),
        optimizer=ADAM_STATES * sum(trained) + ADAM_STEP * len(trained),
        activations=BATCH * TOKENS * sum(_kept(plan, r) for r in plan.rewrites),
    )
    return replace(plan, memory=memory)


def _added(plan: Plan) -> list[tuple[AddedTensor, int]]:
    """Every tensor that is stored, a shared one once, with its bytes."""
    return [(t, t.count * _width(plan, r, t)) for r, t in stored(plan.rewrites)]


def _width(plan: Plan, rewrite: Rewrite, tensor: AddedTensor | None = None) -> int:
    """Bytes of a scalar that a rewrite adds."""
    if tensor is not None and tensor.places:
        return DTYPE_BYTES["int64"]
    if plan.dtype != "auto":
        return DTYPE_BYTES[plan.dtype]
    return 8 if rewrite.site.dtype == "float64" else 4


def _kept(plan: Plan, rewrite: Rewrite) -> int:
    """Bytes per token that the added operations save: the results of token steps."""
    scalars = sum(
        prod(step.shape)
        for program in rewrite.programs
        for step in program.steps
        if step.tokens and step.op not in ("view", "add")
    )
    return scalars * _width(plan, rewrite)
