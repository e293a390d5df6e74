"""Trainable counts against published ones, from configurations alone.

`oracles/param_counts.json` holds published and exact counts with their derivations.
A row here says which spec means the row's method; models are built without weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import transformers as hf

from peftc.driver import make_plan
from peftc.sites.view import view_from_config
from peftc.syntax.source import Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.view import ModelView

ROWS = json.loads(
    (Path(__file__).parent.parent / "oracles" / "param_counts.json").read_text()
)


def config(kind: Any, architecture: str, **facts: Any) -> Any:
    made = kind(**facts)
    made.architectures = [architecture]
    return made


def bert(width: int, layers: int, heads: int, vocabulary: int) -> Any:
    return config(
        hf.BertConfig,
        "BertModel",
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        vocab_size=vocabulary,
    )


def llama(width: int, layers: int, heads: int, inner: int, **more: Any) -> Any:
    return config(
        hf.LlamaConfig,
        "LlamaForCausalLM",
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        tie_word_embeddings=False,
        **more,
    )


def bart() -> Any:
    return config(
        hf.BartConfig,
        "BartForConditionalGeneration",
        d_model=1024,
        encoder_layers=12,
        decoder_layers=12,
        encoder_attention_heads=16,
        decoder_attention_heads=16,
        encoder_ffn_dim=4096,
        decoder_ffn_dim=4096,
    )


def roberta(width: int, layers: int, heads: int) -> Any:
    return config(
        hf.RobertaConfig,
        "RobertaModel",
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
    )


def t5(width: int, inner: int, layers: int, heads: int, **more: Any) -> Any:
    return config(
        hf.T5Config,
        "T5ForConditionalGeneration",
        d_model=width,
        d_ff=inner,
        num_layers=layers,
        num_heads=heads,
        d_kv=64,
        **more,
    )


def gpt3() -> Any:
    facts = {"n_embd": 12288, "n_layer": 96, "n_head": 96}
    return config(hf.GPT2Config, "GPT2LMHeadModel", **facts)


SMALL_LLAMA = "llama (hidden 768, 12 layers, 12 heads, 4 kv heads, inter 2048)"
MODELS: dict[str, Callable[[], Any]] = {
    "bert-base-uncased": lambda: bert(768, 12, 12, 30522),
    "bert-large-uncased": lambda: bert(1024, 24, 16, 30522),
    "roberta-base": lambda: roberta(768, 12, 12),
    "roberta-large": lambda: roberta(1024, 24, 16),
    "t5-base": lambda: t5(768, 3072, 12, 12),
    "T0-3B (t5-v1.1-xl)": lambda: t5(
        2048, 5120, 24, 32, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "bart-large": bart,
    "bart-large (XSum)": bart,
    SMALL_LLAMA: lambda: llama(768, 12, 12, 2048, num_key_value_heads=4),
    "Llama-2-7B": lambda: llama(4096, 32, 32, 11008),
    "LLaMA-7B": lambda: llama(4096, 32, 32, 11008),
    "LLaMA-13B": lambda: llama(5120, 40, 40, 13824),
    "gpt3-175b": gpt3,
}
SLOW = {"T0-3B (t5-v1.1-xl)", "LLaMA-13B", "gpt3-175b", "bert-large-uncased"}


@dataclass(frozen=True)
class Row:
    """A published row, found by some of its hyperparameters, and what means it here."""

    method: str
    model: str
    hyperparameters: dict[str, Any]
    spec: str

    @property
    def count(self) -> int:
        (count,) = (row["exact_count"] for row in ROWS if self.means(row))
        return int(count)

    def means(self, row: dict[str, Any]) -> bool:
        same = (row["method"], row["model"]) == (self.method, self.model)
        return same and self.hyperparameters.items() <= row["hyperparameters"].items()

    def __str__(self) -> str:
        values = ",".join(map(str, self.hyperparameters.values()))
        return f"{self.method}-{self.model.split(' ')[0]}-{values}"


LOW_RANK = """
method low_rank(d: size) on hidden {
  param D1[d], D2[hidden], bd[d], U1[hidden], U2[d], bu[hidden]
  h' = h + outer(U1, U2)(gelu(outer(D1, D2)(h) + bd)) + bu
}
low_rank(attn, d=24) @ self + low_rank(ffn, d=24) + norm_tuning(norm)
"""
PHM = """
method dense_phm(n2: size, d: size) on hidden {
  param P[n2, n2, n2], S[n2, d/n2, hidden/n2], bd[d]
  param R[n2, n2, n2], T[n2, hidden/n2, d/n2], bu[hidden]
  D = sum[i: n2](kron(P[i], S[i]))
  U = sum[i: n2](kron(R[i], T[i]))
  h' = h + U(gelu(D(h) + bd)) + bu
}
dense_phm(attn, n2=12, d=24) @ self + dense_phm(ffn, n2=12, d=24) + norm_tuning(norm)
"""
T5_HOULSBY = "adapter(attn, d={0}) @ self + adapter(ffn, d={0})"
SELF = "adapter(attn, d=24) @ self + norm_tuning(norm)"
KNOWN = [
    Row("lora", "bert-base-uncased", {"r": 8}, "lora(q, v, r=8)"),
    Row("pfeiffer", "bert-base-uncased", {"bottleneck": 48}, "pfeiffer(ffn)"),
    Row("houlsby", "bert-base-uncased", {"bottleneck": 48}, "adapter(attn, ffn, d=48)"),
    Row("parallel", "bert-base-uncased", {"bottleneck": 384}, "parallel(ffn, d=384)"),
    Row("bitfit", "bert-base-uncased", {}, 'bitfit(linear, norm, "*pooler*")'),
    Row("vera_paper_form", "bert-base-uncased", {"r": 8}, "vera(q, v, r=8)"),
    Row("prefix_flat", "bert-base-uncased", {"flat": True}, "prefix(k, v, p=10)"),
    Row("prefix_mlp", "bert-base-uncased", {}, "prefix(p=30, mlp=512)"),
    Row(
        "unipelt_AP",
        "bert-base-uncased",
        {},
        "gate(prefix(p=10)) + gate(pfeiffer(ffn, d=48))",
    ),
    Row("unipelt_APL", "bert-base-uncased", {}, "unipelt()"),
    Row("bitfit", "bert-large-uncased", {}, 'bitfit(linear, norm, "*pooler*")'),
    Row("houlsby", "bert-large-uncased", {"bottleneck": 64}, "houlsby(d=64)"),
    Row("bitfit", "roberta-base", {}, "bitfit(linear, norm)"),
    Row("lora", "roberta-base", {"r": 16}, "lora(q, v, r=16)"),
    Row("pfeiffer", "roberta-large", {"bottleneck": 16}, "pfeiffer(ffn, d=16)"),
    Row("houlsby", "roberta-large", {"bottleneck": 8}, "adapter(attn, ffn, d=8)"),
    Row("adapters:lora", "t5-base", {}, "lora(q, v, r=8)"),
    Row("adapters:ia3", "t5-base", {}, "ia3(k, v, ffn)"),
    Row("adapters:prefix_tuning_flat", "t5-base", {}, "prefix(p=30)"),
    Row("prompt_tuning", "t5-base", {"prompt_length": 100}, "prompt(p=100)"),
    Row("adapters:unipelt", "t5-base", {}, "unipelt(mlp=512)"),
    Row("adapters:compacter++", "t5-base", {}, "phm(ffn)"),
    Row("adapter_lowrank", "t5-base", {}, LOW_RANK),
    Row("phm_adapter", "t5-base", {}, PHM),
    *(
        Row(
            "adapter_houlsby",
            "t5-base",
            {"bottleneck": d},
            f"{T5_HOULSBY.format(d)} + norm_tuning(norm)",
        )
        for d in (24, 48)
    ),
    Row("pfeiffer_compacter_repo", "t5-base", {}, SELF),
    Row(
        "adapterdrop",
        "t5-base",
        {},
        f"({T5_HOULSBY.format(24)}) @ layers(5..11) + norm_tuning(norm)",
    ),
    Row(
        "lora",
        "T0-3B (t5-v1.1-xl)",
        {"r": 4},
        "lora(q, k, v, o, gate, up, down, r=4) + norm_tuning(norm)",
    ),
    Row("adapters:ia3", "bart-large", {}, "ia3(k, v, ffn)"),
    Row("adapters:mam", "bart-large", {}, "mam(mlp=800)"),
    Row("mam", "bart-large (XSum)", {"counted": "flat prefix"}, "mam()"),
    Row("prefix_flat", "bart-large (XSum)", {}, "prefix(p=200)"),
    Row(
        "prefix+lora_ffn",
        "bart-large (XSum)",
        {},
        "prefix(p=30) + lora(up, down, r=102)",
    ),
    Row("pfeiffer", "bart-large (XSum)", {"bottleneck": 600}, "pfeiffer(ffn, d=600)"),
    Row(
        "sequential_attn",
        "bart-large (XSum)",
        {"bottleneck": 200},
        "adapter(attn, d=200)",
    ),
    Row("adapters:par_bn", SMALL_LLAMA, {}, "parallel(ffn, d=384)"),
    Row("adapters:dora", SMALL_LLAMA, {}, "dora(q, v, r=8)"),
    Row("lora", "Llama-2-7B", {"r": 4}, "lora(o, r=4) @ layers(15)"),
    Row("lora", "LLaMA-7B", {"r": 32}, "lora(q, k, v, up, down, r=32)"),
    Row("lora", "LLaMA-13B", {"r": 32}, "lora(q, k, v, up, down, r=32)"),
    Row("lora", "gpt3-175b", {"r": 1}, "lora(q, v, r=1)"),
    Row("lora", "gpt3-175b", {"r": 4}, "lora(q, v, r=4)"),
    Row("houlsby", "gpt3-175b", {"bottleneck": 8}, "adapter(attn, ffn, d=8)"),
]


@cache
def view(name: str) -> ModelView:
    return view_from_config(MODELS[name]())


def marked(row: Row) -> Any:
    slow = [pytest.mark.slow] if row.model in SLOW else []
    group = pytest.mark.xdist_group(row.model)
    return pytest.param(row, id=str(row), marks=[group, *slow])


@pytest.mark.parametrize("row", [marked(row) for row in KNOWN])
def test_the_plan_counts_what_was_published(row: Row) -> None:
    plan = make_plan(Source("<spec>", row.spec), view(row.model))
    assert plan.trainable == row.count
