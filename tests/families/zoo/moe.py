"""Mixtures of experts, latent attention, and hybrids with state spaces."""

from __future__ import annotations

from tests.families.zoo.case import GROUPED, Case

CASES = {
    "mixtral": Case(
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4},
        quick=True,
    ),
}
