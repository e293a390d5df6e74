"""Decoders of text."""

from __future__ import annotations

from tests.families.zoo.case import GROUPED, LAYERS, MAIN, OWN_HEADS, Case

_EAGER = ("eager",)
_N = {
    "n_embd": 32,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_positions": 64,
    "vocab_size": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GPT2 = {**_N, "n_inner": 48}
_ROTARY = {**_GPT2, "rotary_dim": 4}
_OPT = {
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
}
_FALCON = {**MAIN, "ffn_hidden_size": 48}
_SLIDING = {
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 4,
}

CASES = {
    "arcee": Case(
        "ArceeForCausalLM",
        "ArceeConfig",
        GROUPED,
        notes="Its feed-forward squares a ReLU and has no gate.",
    ),
    "biogpt": Case("BioGptForCausalLM", "BioGptConfig", MAIN),
    "bitnet": Case(
        "BitNetForCausalLM",
        "BitNetConfig",
        GROUPED,
        notes=(
            "Norms stand between attention and `o` and before `down`.  The weights "
            "are taken as they are: the ternary layers come with quantisation."
        ),
    ),
    "bloom": Case(
        "BloomForCausalLM",
        "BloomConfig",
        {
            "hidden_size": 32,
            "n_layer": LAYERS,
            "n_head": 4,
            "vocab_size": 96,
            "pad_token_id": 0,
        },
        attentions=_EAGER,
        notes=(
            "ALiBi enters as the summand of a `baddbmm`; q, k and v are interleaved "
            "by head."
        ),
    ),
    "codegen": Case(
        "CodeGenForCausalLM",
        "CodeGenConfig",
        _ROTARY,
        attentions=_EAGER,
        notes="q, v and k, in this order, in each of four blocks of the fused weight.",
    ),
    "cohere": Case(
        "CohereForCausalLM",
        "CohereConfig",
        GROUPED,
        notes="Attention and feed-forward are parallel; layer norms are spelt out.",
    ),
    "cohere-qk-norm": Case(
        "CohereForCausalLM",
        "CohereConfig",
        {**GROUPED, "use_qk_norm": True},
        notes=(
            "The gains of the query and key norms are matrices [heads, head size]: "
            "they are reported, not sites."
        ),
    ),
    "cohere2": Case(
        "Cohere2ForCausalLM",
        "Cohere2Config",
        {**GROUPED, **_SLIDING},
        notes="Layers with a window have RoPE, the others no positions.",
    ),
    "ctrl": Case(
        "CTRLLMHeadModel",
        "CTRLConfig",
        {**_N, "dff": 48},
        notes="Positions are a buffer of sines.",
    ),
    "ernie4-5": Case(
        "Ernie4_5ForCausalLM", "Ernie4_5Config", {**OWN_HEADS, "use_bias": True}
    ),
    "exaone4": Case(
        "Exaone4ForCausalLM",
        "Exaone4Config",
        {**OWN_HEADS, **_SLIDING, "sliding_window_pattern": 2},
        notes="A norm follows each sublayer; `attn` and `ffn` are behind it.",
    ),
    "falcon": Case(
        "FalconForCausalLM",
        "FalconConfig",
        _FALCON,
        notes="One key/value head; linears are `x @ w.T`; sublayers are parallel.",
        device="cpu",
    ),
    "falcon-alibi": Case(
        "FalconForCausalLM",
        "FalconConfig",
        {
            **_FALCON,
            "alibi": True,
            "multi_query": False,
            "parallel_attn": False,
            "bias": True,
        },
        notes="Linears are `x @ w.T + bias`, the bias by an operator of its own.",
    ),
    "falcon-new": Case(
        "FalconForCausalLM",
        "FalconConfig",
        {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
        notes=(
            "Keys and values are repeated for every head before the attention and "
            "its cache."
        ),
        device="cpu",
    ),
    "gemma": Case("GemmaForCausalLM", "GemmaConfig", OWN_HEADS),
    "gemma2": Case(
        "Gemma2ForCausalLM", "Gemma2Config", OWN_HEADS, attentions=_EAGER, quick=True
    ),
    "gemma3-text": Case(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        {**OWN_HEADS, **_SLIDING},
        notes=(
            "Sliding windows; norms on queries and keys, before and behind each "
            "sublayer."
        ),
    ),
    "glm": Case("GlmForCausalLM", "GlmConfig", OWN_HEADS),
    "glm4": Case(
        "Glm4ForCausalLM",
        "Glm4Config",
        OWN_HEADS,
        notes="Norms before and behind each sublayer.",
    ),
    "gpt2": Case("GPT2LMHeadModel", "GPT2Config", _GPT2, quick=True),
    "gpt-bigcode": Case(
        "GPTBigCodeForCausalLM", "GPTBigCodeConfig", _GPT2, notes="One key/value head."
    ),
    "gpt-neo": Case(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_layers": LAYERS,
            "num_heads": 4,
            "vocab_size": 96,
            "max_position_embeddings": 64,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
        attentions=_EAGER,
        notes="Every other layer sees a window only; its mask is a buffer.",
        device="cpu",
    ),
    "gpt-neox": Case("GPTNeoXForCausalLM", "GPTNeoXConfig", MAIN, quick=True),
    "gptj": Case("GPTJForCausalLM", "GPTJConfig", _ROTARY, attentions=_EAGER),
    "granite": Case(
        "GraniteForCausalLM",
        "GraniteConfig",
        {
            **GROUPED,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.25,
            "embedding_multiplier": 2.0,
            "logits_scaling": 4.0,
        },
        notes="What a sublayer gives is scaled; `attn` and `ffn` are behind the scale.",
    ),
    "helium": Case("HeliumForCausalLM", "HeliumConfig", OWN_HEADS),
    "llama": Case("LlamaForCausalLM", "LlamaConfig", GROUPED, quick=True),
    "mistral": Case("MistralForCausalLM", "MistralConfig", GROUPED, quick=True),
    "mpt": Case(
        "MptForCausalLM",
        "MptConfig",
        {
            "d_model": 32,
            "n_layers": LAYERS,
            "n_heads": 4,
            "vocab_size": 96,
            "max_seq_len": 64,
            "pad_token_id": 0,
        },
        attentions=_EAGER,
        uncached="Its ALiBi counts from the last key, not from the query: the share of "
        "a prefix depends on how many keys there are.",
        notes="ALiBi; the attention is always spelt out.",
    ),
    "nemotron": Case(
        "NemotronForCausalLM",
        "NemotronConfig",
        GROUPED,
        notes="The norms' gain is `1 + weight`.",
    ),
    "olmo": Case(
        "OlmoForCausalLM",
        "OlmoConfig",
        {**GROUPED, "clip_qkv": 8.0},
        notes=(
            "Norms have no parameters, so they are no sites; q, k and v are clamped "
            "in place."
        ),
    ),
    "olmo2": Case(
        "Olmo2ForCausalLM",
        "Olmo2Config",
        GROUPED,
        notes="A norm follows each sublayer; `attn` and `ffn` are behind it.",
    ),
    "openai-gpt": Case(
        "OpenAIGPTLMHeadModel",
        "OpenAIGPTConfig",
        _N,
        attentions=_EAGER,
        notes=(
            "Post-norm; there is no cache.  Its mask is a buffer, whose numbers a "
            "configuration does not hold: later tokens are taken to be hidden.  Its "
            "attention multiplies scores by the mask before it adds one."
        ),
        prefix="PEFT439",
    ),
    "opt": Case("OPTForCausalLM", "OPTConfig", _OPT, quick=True),
    "persimmon": Case("PersimmonForCausalLM", "PersimmonConfig", MAIN),
    "phi": Case("PhiForCausalLM", "PhiConfig", GROUPED),
    "phi3": Case("Phi3ForCausalLM", "Phi3Config", GROUPED, quick=True),
    "qwen2": Case("Qwen2ForCausalLM", "Qwen2Config", GROUPED),
    "qwen3": Case("Qwen3ForCausalLM", "Qwen3Config", OWN_HEADS, quick=True),
    "seed-oss": Case("SeedOssForCausalLM", "SeedOssConfig", OWN_HEADS),
    "smollm3": Case(
        "SmolLM3ForCausalLM",
        "SmolLM3Config",
        {**GROUPED, "no_rope_layer_interval": 2},
        notes="Every other layer has no positions.",
    ),
    "stablelm": Case(
        "StableLmForCausalLM", "StableLmConfig", {**GROUPED, "use_qkv_bias": True}
    ),
    "stablelm-parallel": Case(
        "StableLmForCausalLM",
        "StableLmConfig",
        {**GROUPED, "use_parallel_residual": True, "qk_layernorm": True},
        notes="Each head's queries and keys have a norm of their own.",
    ),
    "starcoder2": Case("Starcoder2ForCausalLM", "Starcoder2Config", GROUPED),
    "xglm": Case(
        "XGLMForCausalLM",
        "XGLMConfig",
        {
            "d_model": 32,
            "ffn_dim": 48,
            "num_layers": LAYERS,
            "attention_heads": 4,
            "vocab_size": 96,
            "max_position_embeddings": 64,
        },
        attentions=_EAGER,
        notes="Positions are a buffer of sines.",
    ),
}
