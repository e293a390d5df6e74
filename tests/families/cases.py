"""Tiny configurations of the families whose sites are written down in `expected/`.

Width 32, feed-forward 48, four heads of 8, two key/value heads where the family has
them, 96 tokens, two layers: no two axes that could be mistaken for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf

if TYPE_CHECKING:
    from collections.abc import Callable

LAYERS = 2

_MAIN: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": 96,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_GROUPED = {**_MAIN, "num_key_value_heads": 2}
_OWN_HEADS = {**_GROUPED, "head_dim": 8}
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
_T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": LAYERS,
    "num_heads": 4,
    "vocab_size": 96,
    "decoder_start_token_id": 0,
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
_BART = {
    "d_model": 32,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 96,
    "max_position_embeddings": 64,
}

_CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "albert": (hf.AlbertForMaskedLM, hf.AlbertConfig, {**_MAIN, "embedding_size": 16}),
    "bart": (hf.BartForConditionalGeneration, hf.BartConfig, _BART),
    "bert": (hf.BertModel, hf.BertConfig, _MAIN),
    "bert-classifier": (hf.BertForSequenceClassification, hf.BertConfig, _MAIN),
    "bert-mlm": (hf.BertForMaskedLM, hf.BertConfig, _MAIN),
    "gemma2": (hf.Gemma2ForCausalLM, hf.Gemma2Config, _OWN_HEADS),
    "gpt2": (hf.GPT2LMHeadModel, hf.GPT2Config, _GPT2),
    "gpt-neox": (hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, _MAIN),
    "llama": (hf.LlamaForCausalLM, hf.LlamaConfig, _GROUPED),
    "mistral": (hf.MistralForCausalLM, hf.MistralConfig, _GROUPED),
    "mixtral": (
        hf.MixtralForCausalLM,
        hf.MixtralConfig,
        {**_GROUPED, "num_local_experts": 4},
    ),
    "opt": (hf.OPTForCausalLM, hf.OPTConfig, _OPT),
    "phi3": (hf.Phi3ForCausalLM, hf.Phi3Config, _GROUPED),
    "qwen3": (hf.Qwen3ForCausalLM, hf.Qwen3Config, _OWN_HEADS),
    "roberta": (hf.RobertaForSequenceClassification, hf.RobertaConfig, _MAIN),
    "t5": (hf.T5ForConditionalGeneration, hf.T5Config, _T5),
}

FAMILIES = tuple(_CASES)


def attentions(family: str) -> tuple[str, ...]:
    """The implementations of attention that a family has, its usual one first."""
    return ("eager",) if family == "gemma2" else ("sdpa", "eager")


def config(family: str, attention: str = "") -> Any:
    """The configuration of a family, with its usual attention unless one is named."""
    _, config_class, facts = _CASES[family]
    made = config_class(**facts)
    made._attn_implementation = attention or attentions(family)[0]
    made.architectures = [_CASES[family][0].__name__]
    return made


def model(family: str, attention: str = "", device: str = "meta") -> Any:
    """A model in evaluation mode, without weights unless on the CPU."""
    model_class = _CASES[family][0]
    torch.manual_seed(0)
    with torch.device(device):
        return model_class._from_config(config(family, attention)).eval()


MODES: dict[str, Callable[[Any], Any]] = {
    "eval": lambda made: made.eval(),
    "train": lambda made: made.train(),
}


def slow(*values: Any) -> Any:
    """A case that a quick run leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow, id="-".join(map(str, values)))
