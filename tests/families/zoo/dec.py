"""Decoders of text."""

from __future__ import annotations

from tests.families.zoo.case import GROUPED, LAYERS, MAIN, OWN_HEADS, Case

_GPT2 = {
    "n_embd": 32,
    "n_layer": LAYERS,
    "n_head": 4,
    "n_inner": 48,
    "n_positions": 64,
    "vocab_size": 96,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_OPT = {
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "word_embed_proj_dim": 32,
}

CASES = {
    "gemma2": Case(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        OWN_HEADS,
        attentions=("eager",),
        quick=True,
    ),
    "gpt2": Case("GPT2LMHeadModel", "GPT2Config", _GPT2, quick=True),
    "gpt-neox": Case("GPTNeoXForCausalLM", "GPTNeoXConfig", MAIN, quick=True),
    "llama": Case("LlamaForCausalLM", "LlamaConfig", GROUPED, quick=True),
    "mistral": Case("MistralForCausalLM", "MistralConfig", GROUPED, quick=True),
    "opt": Case("OPTForCausalLM", "OPTConfig", _OPT, quick=True),
    "phi3": Case("Phi3ForCausalLM", "Phi3Config", GROUPED, quick=True),
    "qwen3": Case("Qwen3ForCausalLM", "Qwen3Config", OWN_HEADS, quick=True),
}
