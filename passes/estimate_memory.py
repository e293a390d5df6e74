"""Estimate what training the plan holds in memory, part by part."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from peftc.pipeline import Fact, plan_pass
from peftc.plan.types import DTYPE_BYTES, Memory, Plan

BATCH, TOKENS = 8, 512
ADAM_STATES = 2  # first and second moments, as torch.optim.AdamW keeps them


@plan_pass("estimate-memory", requires={Fact.ORDERED}, ensures={Fact.MEMORY_KNOWN})
def estimate_memory(plan: Plan) -> Plan:
    """Bytes of base, parameters, gradients, AdamW states and added activations.

    rewrite:
        plan  ->  plan with `memory batch=8 tokens=512 base=... parameters=...`

    guards: none.  Activations are those the added operations keep for backward, for a
    stated batch; what the base itself keeps depends on its attention and is not in it.
    """
    width = 4 if plan.dtype == "auto" else DTYPE_BYTES[plan.dtype]
    trainable = plan.trainable * width
    memory = Memory(
        batch=BATCH,
        tokens=TOKENS,
        base=plan.model.bytes,
        parameters=trainable,
        gradients=trainable,
        optimizer=ADAM_STATES * trainable,
        activations=BATCH * TOKENS * _kept(plan) * width,
    )
    return replace(plan, memory=memory)


def _kept(plan: Plan) -> int:
    """Scalars per token that the added operations save: the results of token steps."""
    return sum(
        prod(step.shape)
        for rewrite in plan.rewrites
        for program in rewrite.programs
        for step in program.steps
        if step.tokens and step.op not in ("view", "add")
    )
