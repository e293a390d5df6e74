"""Small models of transformers with random weights, and inputs for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

if TYPE_CHECKING:
    from collections.abc import Callable

torch.set_num_threads(1)


def llama(**changes: Any) -> Any:
    facts = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    return LlamaForCausalLM(LlamaConfig(**(facts | changes)))


def gpt2(**changes: Any) -> Any:
    facts = {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 64,
        "vocab_size": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    return GPT2LMHeadModel(GPT2Config(**(facts | changes)))


def bert(**changes: Any) -> Any:
    facts = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 128,
        "max_position_embeddings": 64,
        "num_labels": 3,
    }
    return BertForSequenceClassification(BertConfig(**(facts | changes)))


def t5(**changes: Any) -> Any:
    facts = {
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 96,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 128,
        "decoder_start_token_id": 0,
    }
    return T5ForConditionalGeneration(T5Config(**(facts | changes)))


MODELS: dict[str, Callable[..., Any]] = {
    "llama": llama,
    "gpt2": gpt2,
    "bert": bert,
    "t5": t5,
}


def model(family: str, seed: int = 0, **changes: Any) -> Any:
    """A model in evaluation mode; biases and norms are random too, not 0 and 1."""
    return prepared(lambda: MODELS[family](**changes), seed)


def prepared(make: Callable[[], Any], seed: int = 0) -> Any:
    """What `make` makes, in evaluation mode, with weights that matter."""
    torch.manual_seed(seed)
    made = make().eval()
    embeddings = [m.weight for m in made.modules() if isinstance(m, torch.nn.Embedding)]
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            elif not any(parameter is one for one in embeddings):
                parameter.mul_(3)
    return made


def tokens(batch: int = 2, length: int = 9, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 128, (batch, length), generator=generator)


def randomise(compiled: Any, scale: float = 0.1, seed: int = 5) -> None:
    """Move every trainable tensor away from its start, so that nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in compiled.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(scale * noise.to(parameter.dtype))


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, relative to the largest value wanted."""
    got, wanted = got.detach(), wanted.detach()
    return float((got - wanted).abs().max() / wanted.abs().max())
