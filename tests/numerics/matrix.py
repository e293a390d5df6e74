"""Methods, families and dtypes of the generic oracles, and which cells are tried.

`test_oracles.py` tries all oracles with three families in float32.  Here methods that
read or add to what tokens see meet every family, and the others one each, in turn; the
dtype and the costly oracle of a cell go round along both axes.  Always the same cells.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import transformers as hf

from tests.models import prepared, tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class Method:
    """A spec, and what is claimed for it.

    `start` is how near the start is to the base: `exact`, `rounding`, or `apart`.
    """

    spec: str
    merges: bool = True
    start: str = "exact"
    always: bool = False
    """Whether padding, caches and later tokens are tried with every family."""
    narrow: bool = False
    """Not in float64: there gemma2 gives NaN where a window sees padding alone."""

    def spec_for(self, family: str) -> str:
        """In a mixture of experts it is each expert whose `down` is scaled."""
        scaled = family == "mixtral" and "ia3" in self.spec
        return self.spec.replace("ffn)", "experts.down)", 1) if scaled else self.spec


METHODS = {
    "lora": Method("lora(q, v, r=3)"),
    "lora-linear": Method("lora(linear, r=2, alpha=4, dropout=0.1)"),
    "rslora": Method("rslora(r=3)"),
    "ia3": Method("ia3(k, v, ffn)"),
    "bitfit": Method("bitfit(linear, create=true)"),
    "norms": Method("norm_tuning(norm)"),
    "krona": Method("krona(q, o, s=2)"),
    "loha": Method("loha(v, up?, r=2)"),
    "miss": Method("miss(q, o, r=4)"),
    "vera": Method("vera(q, v, r=5)"),
    "ssf": Method("ssf(q, o)"),
    "full": Method("full(v, o)"),
    # Its norm is computed: m / norm is 1 up to rounding.
    "dora": Method("dora(q, o, r=3)", start="rounding"),
    "houlsby": Method("houlsby(d=5)", merges=False),
    "pfeiffer": Method("pfeiffer(ffn, reduction=4)", merges=False),
    "parallel": Method("parallel(ffn, d=6)", merges=False),
    "prefix": Method("prefix(p=3)", merges=False, start="apart", always=True),
    "prompt": Method("prompt(p=3)", merges=False, start="apart", always=True),
    "ptuning": Method('ptuning(p=3, at="0:2, 1:1")', merges=False, start="apart"),
    "ipt": Method("ipt(p=3, d=2, m=4)", merges=False, start="apart", narrow=True),
    "prefix-mlp": Method(
        "prefix(p=2, mlp=6, embed=5, dropout=0.1, positions=keep)",
        merges=False,
        start="apart",
    ),
    "mam": Method("mam(p=2, d=6)", merges=False, start="apart"),
    "unipelt": Method(
        "unipelt(p=2, d=5, r=3)", merges=False, start="apart", always=True
    ),
    "compacter": Method("compacter(n=2, reduction=4)", merges=False),
    "compacter-pp": Method("compacter_pp(n=2, reduction=4, rank=2)", merges=False),
    "gate": Method("gate(lora(q, v, r=3))", merges=False),
    "mixed": Method(
        "lora(q, v) + ia3(k, ffn) + adapter(ffn, d=4) + bitfit(o, create=true)",
        merges=False,
    ),
}


@dataclass(frozen=True)
class Family:
    """A tiny model of one kind: `decoder`, `encoder`, or `pair` for an encoder-decoder.

    `left` is whether padding on the left may leave real tokens as they are: positions
    can be told to the model, or are relative.
    """

    model: Any
    config: Any
    facts: dict[str, Any]
    kind: str = "decoder"
    left: bool = True
    float64: bool = True
    """Whether a float64 model computes all in it.  With a softmax in float32 the least
    float64, of a mask, is infinite, and tokens of padding on the left are NaN."""
    options: Mapping[str, str] = field(default_factory=dict)
    """How it is to be computed."""
    exactly: Mapping[str, str] = field(default_factory=dict)
    """How in float64, where that is another way: then only to measure rounding."""


_FACTS: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
_GROUPED = {**_FACTS, "num_key_value_heads": 2}

FAMILIES = {
    # Two layers: what is shared between layers shows here.
    "llama": Family(
        hf.LlamaForCausalLM, hf.LlamaConfig, {**_GROUPED, "num_hidden_layers": 2}
    ),
    "gpt2": Family(
        hf.GPT2LMHeadModel,
        hf.GPT2Config,
        {
            "n_embd": 32,
            "n_inner": 48,
            "n_layer": 1,
            "n_head": 4,
            "n_positions": 64,
            "vocab_size": 128,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 0,
        },
    ),
    "bert": Family(
        hf.BertForMaskedLM,
        hf.BertConfig,
        {**_FACTS, "tie_word_embeddings": True},
        kind="encoder",
        left=False,
    ),
    "t5": Family(
        hf.T5ForConditionalGeneration,
        hf.T5Config,
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 1,
            "num_heads": 4,
            "vocab_size": 128,
            "decoder_start_token_id": 0,
        },
        kind="pair",
    ),
    # Queries, keys and values interleaved in one weight; branches in parallel.
    "gpt-neox": Family(hf.GPTNeoXForCausalLM, hf.GPTNeoXConfig, _FACTS),
    "bart": Family(
        hf.BartForConditionalGeneration,
        hf.BartConfig,
        {
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "vocab_size": 128,
            "max_position_embeddings": 64,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
            "forced_eos_token_id": None,
        },
        kind="pair",
        left=False,
    ),
    "mixtral": Family(
        hf.MixtralForCausalLM,
        hf.MixtralConfig,
        {**_GROUPED, "num_local_experts": 4},
        # The grouped product of torch knows no float64.
        exactly={"experts_implementation": "batched_mm"},
    ),
    # Norms on both sides of a sublayer, capped scores, and a window of four tokens.
    "gemma2": Family(
        hf.Gemma2ForCausalLM,
        hf.Gemma2Config,
        {**_GROUPED, "head_dim": 8, "num_hidden_layers": 2, "sliding_window": 4},
        float64=False,
        options={"attn_implementation": "eager"},
    ),
}

DTYPES = (torch.float32, torch.bfloat16, torch.float64)


def build(family: str, dtype: torch.dtype) -> Any:
    """A model in evaluation mode, with biases and norms that are not 0 and 1."""
    case = FAMILIES[family]
    config = case.config(**case.facts)
    exactly = case.exactly if dtype == torch.float64 else {}
    options = {**case.options, **exactly}

    def made() -> Any:
        return case.model._from_config(config, **options)

    return prepared(made).to(dtype)


def inputs(family: str, length: int = 9) -> dict[str, torch.Tensor]:
    """Token numbers, and those of the decoder where there are two stacks."""
    found = {"input_ids": tokens(length=length)}
    if FAMILIES[family].kind == "pair":
        found["decoder_input_ids"] = tokens(length=6, seed=4)
    return found


def cells(oracles: int) -> Iterator[tuple[str, str, torch.dtype, int]]:
    """Method, family, dtype and which of the costly oracles."""
    for row, (name, method) in enumerate(METHODS.items()):
        for column, (family, case) in enumerate(FAMILIES.items()):
            if method.always or (3 * row + column) % len(FAMILIES) == 0:
                dtype = DTYPES[(row + column) % len(DTYPES)]
                if (case.exactly or method.narrow) and dtype == torch.float64:
                    dtype = torch.float32
                yield name, family, dtype, (row + column) % oracles
