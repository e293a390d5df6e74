"""Mixtures of experts, latent attention, and hybrids with state spaces."""

from __future__ import annotations

from tests.families.zoo.case import GROUPED, OWN_HEADS, Case

CASES = {
    "mixtral": Case(
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4},
        quick=True,
    ),
    "gpt-oss": Case(
        "GptOssForCausalLM",
        "GptOssConfig",
        {
            **OWN_HEADS,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "sliding_window": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        attentions=("eager",),
    ),
}
