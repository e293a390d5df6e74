"""Mixtures of experts, latent attention, and hybrids with state spaces."""

from __future__ import annotations

from typing import Any

from tests.families.zoo.case import GROUPED, LAYERS, MAIN, OWN_HEADS, Case

_EAGER = ("eager",)
_ROUTED: dict[str, Any] = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
}
_LATENT: dict[str, Any] = {
    **MAIN,
    "num_key_value_heads": 4,
    "q_lora_rank": 20,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 6,
    "qk_rope_head_dim": 4,
    "v_head_dim": 5,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
}
_MAMBA2: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 6,
    "mamba_n_groups": 1,
    "mamba_expand": 2,
    "mamba_chunk_size": 4,
}

CASES = {
    "bamba": Case(
        "BambaForCausalLM",
        "BambaConfig",
        {**GROUPED, **_MAMBA2, "attn_layer_indices": [1]},
        notes=(
            "The linears of its state-space layers have no role; `linear` and "
            "paths select them."
        ),
    ),
    "dbrx": Case(
        "DbrxForCausalLM",
        "DbrxConfig",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": LAYERS,
            "max_seq_len": 64,
            "vocab_size": 96,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 1e4},
            "ffn_config": {
                "hidden_size": 32,
                "ffn_hidden_size": 48,
                "moe_num_experts": 4,
                "moe_top_k": 2,
            },
            "pad_token_id": 0,
        },
        notes=(
            "Transformers runs its experts in a loop that depends on the data: "
            "the forward is not one graph, so the model is refused."
        ),
    ),
    "deepseek-v2": Case(
        "DeepseekV2ForCausalLM",
        "DeepseekV2Config",
        {**_LATENT, "topk_method": "group_limited_greedy", "head_dim": 4},
        notes=(
            "Latent attention: `q` is the second of two linears, `v` exact rows "
            "of the shared one; a key is made by two linears, so `k` is not "
            "told. Layer 0 is dense."
        ),
    ),
    "deepseek-v3": Case(
        "DeepseekV3ForCausalLM",
        "DeepseekV3Config",
        _LATENT,
        notes=(
            "Latent attention: `q` is the second of two linears, `v` exact rows "
            "of the shared one; a key is made by two linears, so `k` is not "
            "told. Layer 0 is dense."
        ),
    ),
    "falcon-h1": Case(
        "FalconH1ForCausalLM",
        "FalconH1Config",
        {**OWN_HEADS, **_MAMBA2, "mamba_d_ssm": 64},
        notes=(
            "Attention and a state-space mixer read the same norm and are "
            "added; the mixer's linears have no role."
        ),
    ),
    "glm4-moe": Case(
        "Glm4MoeForCausalLM",
        "Glm4MoeConfig",
        {
            **OWN_HEADS,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "first_k_dense_replace": 1,
            "use_qk_norm": True,
        },
        notes=(
            "Layer 0 is dense; beside the routed experts of the others is a "
            "shared one, whose linears are `up`, `gate` and `down`."
        ),
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
        attentions=_EAGER,
        notes=(
            "Experts with biases; `gate` and `up` are every second row of one "
            "stack, both clamped. Attention sinks are not part of the mask."
        ),
    ),
    "granitemoe": Case(
        "GraniteMoeForCausalLM",
        "GraniteMoeConfig",
        {**GROUPED, "num_local_experts": 4},
        notes=(
            "Sublayer outputs are scaled before they are added, so edges are no "
            "plain outputs of a linear."
        ),
    ),
    "jamba": Case(
        "JambaForCausalLM",
        "JambaConfig",
        {
            **GROUPED,
            "num_experts": 4,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "mamba_d_state": 6,
            "mamba_dt_rank": 5,
            "use_mamba_kernels": False,
        },
        differs="Its scan takes another path under the tracer",
        notes=(
            "State-space layers have linears without a role; the product of "
            "`dt_proj` is not one with its bias. Half of the feed-forwards are "
            "experts."
        ),
    ),
    "jetmoe": Case(
        "JetMoeForCausalLM",
        "JetMoeConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": LAYERS,
            "num_key_value_heads": 2,
            "kv_channels": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "vocab_size": 96,
            "pad_token_id": 0,
        },
        notes=(
            "Experts in the attention too: their matrices are used one by one, "
            "which is not told; `k`, `v` and both routers are."
        ),
    ),
    "lfm2": Case(
        "Lfm2ForCausalLM",
        "Lfm2Config",
        {
            **GROUPED,
            "block_auto_adjust_ff_dim": False,
            "layer_types": ["conv", "full_attention"],
        },
        notes=("Sublayers of short convolutions have linears without a role."),
    ),
    "llama4": Case(
        "Llama4ForCausalLM",
        "Llama4TextConfig",
        {
            **OWN_HEADS,
            "intermediate_size_mlp": 40,
            "num_local_experts": 4,
            "interleave_moe_layer_step": 2,
        },
        notes=(
            "Every expert sees every token, weighted. The shared expert is "
            "`up`, `gate` and `down`; the routed ones are added to it in place."
        ),
    ),
    "mamba": Case(
        "MambaForCausalLM",
        "MambaConfig",
        {
            "hidden_size": 32,
            "num_hidden_layers": LAYERS,
            "state_size": 6,
            "time_step_rank": 5,
            "vocab_size": 96,
        },
        attentions=_EAGER,
        differs="Its scan takes another path under the tracer",
        notes=(
            "No attention: linears have no role, and `linear` and paths select them."
        ),
    ),
    "minimax": Case(
        "MiniMaxForCausalLM",
        "MiniMaxConfig",
        {
            **OWN_HEADS,
            "num_local_experts": 4,
            "layer_types": ["linear_attention", "full_attention"],
            "block_size": 4,
        },
        uncached="Its own generation with a cache is not like recomputation",
        notes=(
            "Linear attention is no attention that is known: its linears have "
            "no role. The residual goes through the norms, as in post-norm "
            "models."
        ),
    ),
    "mixtral": Case(
        "MixtralForCausalLM",
        "MixtralConfig",
        {**GROUPED, "num_local_experts": 4},
        quick=True,
    ),
    "nemotron-h": Case(
        "NemotronHForCausalLM",
        "NemotronHConfig",
        {
            **{k: v for k, v in OWN_HEADS.items() if k != "num_hidden_layers"},
            "layers_block_type": ["mamba", "moe", "mamba", "attention", "mlp"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 16,
            "ssm_state_size": 6,
            "n_groups": 1,
            "chunk_size": 4,
            "n_routed_experts": 4,
            "moe_intermediate_size": 24,
            "moe_shared_expert_intermediate_size": 20,
            "use_mamba_kernels": False,
        },
        notes=(
            "Each block is one sublayer; a layer begins at each that mixes "
            "tokens. Experts have no gate."
        ),
    ),
    "olmoe": Case(
        "OlmoeForCausalLM",
        "OlmoeConfig",
        {**GROUPED, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "phimoe": Case(
        "PhimoeForCausalLM",
        "PhimoeConfig",
        {**GROUPED, "num_local_experts": 4},
        notes=(
            "Its router chooses by maxima and trains by a function with a "
            "gradient of its own."
        ),
    ),
    "qwen2-moe": Case(
        "Qwen2MoeForCausalLM",
        "Qwen2MoeConfig",
        {**GROUPED, **_ROUTED, "shared_expert_intermediate_size": 40},
        notes=(
            "A shared expert (`up`, `gate`, `down`) is scaled by a linear with "
            "one channel, which has no role."
        ),
    ),
    "qwen3-moe": Case(
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        {**OWN_HEADS, **_ROUTED, "mlp_only_layers": [0]},
        notes=("Layer 0 is dense here."),
    ),
    "qwen3-next": Case(
        "Qwen3NextForCausalLM",
        "Qwen3NextConfig",
        {
            **OWN_HEADS,
            **_ROUTED,
            "shared_expert_intermediate_size": 40,
            "linear_key_head_dim": 6,
            "linear_value_head_dim": 5,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "layer_types": ["linear_attention", "full_attention"],
        },
        notes=(
            "Gated delta-net layers have linears without a role; `q` is half of "
            "a matrix whose other half gates the attention's output."
        ),
    ),
    "recurrent-gemma": Case(
        "RecurrentGemmaForCausalLM",
        "RecurrentGemmaConfig",
        {
            **GROUPED,
            "lru_width": 40,
            "attention_window_size": 8,
            "block_types": ["recurrent", "attention"],
        },
        notes=(
            "Recurrent blocks have linears without a role; their block-diagonal "
            "gates are products of another form."
        ),
    ),
}
