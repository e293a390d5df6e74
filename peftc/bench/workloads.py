"""Models and batches that are timed.

In: a name and a seed.  Out: a frozen model with random weights in training mode, and
the batch of one step.  Dropout is off: peers have to give equal losses.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

HEADS = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM"}
HEADS["seq2seq"] = "AutoModelForSeq2SeqLM"


@dataclass(frozen=True)
class Workload:
    """A model, made of a `family` of transformers' with `sizes`, and a batch."""

    name: str
    about: str
    family: str
    sizes: Mapping[str, Any] = field(hash=False)
    batch: int = 4
    tokens: int = 128
    head: str = "causal"
    dtype: str = "float32"

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return int(self.sizes["vocab_size"])

    def of_depth(self, layers: int) -> Workload:
        """The same with another number of layers."""
        sizes = {**self.sizes, "num_hidden_layers": layers}
        return replace(self, name=f"{self.name} x {layers}", sizes=sizes)

    def base(self, seed: int) -> Any:
        """The frozen model, in training mode."""
        import torch
        import transformers

        torch.manual_seed(seed)
        config = transformers.AutoConfig.for_model(self.family, **self.sizes)
        model = getattr(transformers, HEADS[self.head]).from_config(config)
        return model.to(getattr(torch, self.dtype)).requires_grad_(False).train()

    def inputs(self, seed: int, device: str = "cpu") -> dict[str, Tensor]:
        """The batch: tokens, and the same as labels."""
        import torch

        draw = torch.Generator().manual_seed(seed)
        size = (self.batch, self.tokens)
        ids = torch.randint(2, self.vocabulary, size, generator=draw).to(device)
        return {"input_ids": ids, "labels": ids}


def _llama(width: int, layers: int, heads: tuple[int, int], inner: int) -> Any:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "intermediate_size": inner,
        "vocab_size": 2000 if width > 256 else 256,
        "max_position_embeddings": 512,
    }


C1 = Workload(
    "C1",
    "Llama, 6 layers of width 512, 4 x 128 tokens",
    "llama",
    _llama(512, 6, (8, 4), 1376),
)
C1_SHORT = replace(
    C1, name="C1 short", about="the same, 1 x 32 tokens", batch=1, tokens=32
)
C1_HALF = replace(
    C1, name="C1 bf16", about="the same in bfloat16, 4 x 128 tokens", dtype="bfloat16"
)
SMALL = Workload(
    "small",
    "Llama, 4 layers of width 256, 8 x 128 tokens",
    "llama",
    _llama(256, 4, (8, 4), 512),
    batch=8,
)
TINY = Workload(
    "tiny",
    "Llama, 1 layer of width 64, 2 x 16 tokens",
    "llama",
    _llama(64, 1, (4, 2), 96),
    batch=2,
    tokens=16,
)
BERT = Workload(
    "C2 BERT",
    "BERT, 2 layers of width 128, 8 x 64 tokens",
    "bert",
    {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 256,
        "vocab_size": 256,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    batch=8,
    tokens=64,
    head="masked",
)
GPT2 = Workload(
    "C2 GPT-2",
    "GPT-2, 2 layers of width 128, 8 x 64 tokens",
    "gpt2",
    {
        "n_embd": 128,
        "n_layer": 2,
        "n_head": 4,
        "vocab_size": 256,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 1,
    },
    batch=8,
    tokens=64,
)
T5 = Workload(
    "C2 T5",
    "T5, 2 and 2 layers of width 128, 8 x 64 tokens",
    "t5",
    {
        "d_model": 128,
        "d_kv": 32,
        "d_ff": 256,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 256,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
    },
    batch=8,
    tokens=64,
    head="seq2seq",
)
DEEP = Workload(
    "deep",
    "Llama of width 64, 2 x 16 tokens",
    "llama",
    _llama(64, 2, (4, 2), 96),
    batch=2,
    tokens=16,
)
