"""Agreement with Hugging Face PEFT, an independent implementation.

The same base, PEFT's tensors copied into ours.  In float64 logits and gradients are
equal up to its rounding, so the definitions are the same.  In float32 ours lie as near
to PEFT's float64 as PEFT's own float32 does: nothing is lost beyond the rounding that
the model itself has, which for T5, without scaled scores, is more than for the others.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    get_peft_model,
)

import peftc
from tests.models import model, randomise, relative, tokens

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Pair:
    """A configuration of PEFT and the spec that means the same.

    `names` maps PEFT's tensors to ours, as suffixes of parameter paths after the
    module's own path.
    """

    family: str
    spec: str
    config: Any
    names: dict[str, str]


LORA = {"lora_A.default.weight": "lora.A", "lora_B.default.weight": "lora.B"}
IA3 = {"ia3_l.default": "ia3.l"}
DORA = {
    "lora_A.default.weight": "dora.A",
    "lora_B.default.weight": "dora.B",
    "lora_magnitude_vector.default.weight": "dora.m",
}
LOKR = {"lokr_w1.default": "krona.A", "lokr_w2.default": "krona.B"}
LOHA = {
    "hada_w1_a.default": "loha.B1",
    "hada_w1_b.default": "loha.A1",
    "hada_w2_a.default": "loha.B2",
    "hada_w2_b.default": "loha.A2",
}


def lora(targets: list[str], **more: Any) -> LoraConfig:
    facts: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": targets}
    return LoraConfig(**(facts | more))


def ia3(
    targets: list[str] | str, feedforward: list[str] | str, **more: Any
) -> IA3Config:
    return IA3Config(target_modules=targets, feedforward_modules=feedforward, **more)


CONV = {"fan_in_fan_out": True}
EVERY_LLAMA_LINEAR = ["gate_proj", "up_proj", "down_proj"] + [
    f"{role}_proj" for role in "qkvo"
]
BERT_DOWN = r".*layer\.\d+\.output\.dense"  # not attention.output.dense
PAIRS = {
    "llama-lora": Pair(
        "llama", "lora(q, v, r=4, alpha=6)", lora(["q_proj", "v_proj"]), LORA
    ),
    "llama-lora-all": Pair(
        "llama", "lora(linear, r=4, alpha=6)", lora(EVERY_LLAMA_LINEAR), LORA
    ),
    "llama-rslora": Pair(
        "llama",
        "lora(k, down, r=4, alpha=6, rs=true)",
        lora(["k_proj", "down_proj"], use_rslora=True),
        LORA,
    ),
    "llama-ia3": Pair(
        "llama",
        "ia3(k, v, ffn)",
        ia3(["k_proj", "v_proj", "down_proj"], ["down_proj"]),
        IA3,
    ),
    "llama-dora": Pair(
        "llama",
        "dora(q, down, r=4, alpha=6)",
        lora(["q_proj", "down_proj"], use_dora=True),
        DORA,
    ),
    # A rank that is no restriction leaves both factors of the product whole.
    "llama-lokr": Pair(
        "llama",
        "krona(q, down, a1=8, a2=8, s=1.5)",
        LoKrConfig(
            r=1000,
            alpha=1500,
            decompose_factor=8,
            target_modules=["q_proj", "down_proj"],
        ),
        LOKR,
    ),
    "llama-loha": Pair(
        "llama",
        "loha(q, down, r=4, alpha=6)",
        LoHaConfig(r=4, alpha=6, target_modules=["q_proj", "down_proj"]),
        LOHA,
    ),
    "gpt2-lora": Pair(
        "gpt2",
        'lora("*.attn.c_attn", o, r=4, alpha=6)',
        lora(["attn.c_attn", "attn.c_proj"], **CONV),
        LORA,
    ),
    "gpt2-rslora": Pair(
        "gpt2",
        "lora(up, down, r=4, alpha=6, rs=true)",
        lora(["mlp.c_fc", "mlp.c_proj"], use_rslora=True, **CONV),
        LORA,
    ),
    "gpt2-ia3": Pair(
        "gpt2",
        'ia3("*.attn.c_attn", ffn)',
        ia3(["attn.c_attn", "mlp.c_proj"], ["mlp.c_proj"], **CONV),
        IA3,
    ),
    "bert-lora": Pair(
        "bert", "lora(q, v, r=4, alpha=6)", lora(["query", "value"]), LORA
    ),
    "bert-rslora": Pair(
        "bert",
        "lora(k, up, r=4, alpha=6, rs=true)",
        lora(["key", "intermediate.dense"], use_rslora=True),
        LORA,
    ),
    "bert-ia3": Pair(
        "bert",
        "ia3(k, v, ffn)",
        ia3(rf"{BERT_DOWN}|.*\.(key|value)", BERT_DOWN),
        IA3,
    ),
    # Both stacks and the cross attentions: names without a scope mean all of them.
    "t5-lora": Pair("t5", "lora(q, v, r=4, alpha=6)", lora(["q", "v"]), LORA),
    "t5-lora-cross": Pair(
        "t5",
        "lora(k, o, r=4, alpha=6) @ cross",
        lora(["EncDecAttention.k", "EncDecAttention.o"]),
        LORA,
    ),
    "t5-rslora": Pair(
        "t5",
        "lora(k, down, r=4, alpha=6, rs=true)",
        lora(["k", "wo"], use_rslora=True),
        LORA,
    ),
    "t5-ia3": Pair("t5", "ia3(k, v, ffn)", ia3(["k", "v", "wo"], ["wo"]), IA3),
}


def theirs_and_ours(pair: Pair, dtype: torch.dtype) -> tuple[Any, Any]:
    config = copy.deepcopy(pair.config)
    theirs = get_peft_model(model(pair.family).to(dtype), config).eval()
    ours = peftc.compile(model(pair.family).to(dtype), pair.spec)
    randomise(theirs, scale=0.2)
    return theirs, ours


def matched(pair: Pair, theirs: Any, ours: Any) -> list[tuple[Any, Any]]:
    """Parameters that mean the same, and every trainable one on both sides."""
    found = {}
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            path = name.removeprefix("base_model.model.")
            suffix = next(s for s in pair.names if path.endswith(s))
            found[path.removesuffix(f".{suffix}"), pair.names[suffix]] = parameter
    mine = {}
    for name, parameter in ours.named_parameters():
        if parameter.requires_grad:
            owner, _, rest = name.partition(".peftc.")
            mine[owner, rest.partition(".")[2]] = parameter
    assert found.keys() == mine.keys()
    return [(found[key], mine[key]) for key in found]


def import_theirs(pairs: list[tuple[Any, Any]]) -> None:
    with torch.no_grad():
        for parameter, mine in pairs:
            mine.copy_(parameter.reshape(mine.shape))


def inputs(family: str) -> dict[str, torch.Tensor]:
    """A batch whose second sample is padded on the right."""
    ids, mask = tokens(), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    found = {"input_ids": ids, "attention_mask": mask}
    if family == "t5":
        found["decoder_input_ids"] = tokens(length=7, seed=4)
    return found


def evaluated(network: Any, family: str, parameters: list[Any]) -> list[torch.Tensor]:
    """The logits, and the gradients of a loss in them."""
    logits = network(**inputs(family)).logits
    gradients = torch.autograd.grad(logits.square().mean(), parameters)
    return [logits.detach(), *gradients]


def distance(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> list[float]:
    """Of the logits and, at most, of the gradients."""
    far = [
        relative(g.double().reshape(w.shape), w.double())
        for g, w in zip(got, wanted, strict=True)
    ]
    return [far[0], max(far[1:])]


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_logits_and_gradients_agree(pair: Pair) -> None:
    theirs, ours = theirs_and_ours(pair, torch.float64)
    pairs = matched(pair, theirs.double(), ours)
    import_theirs(pairs)
    (wanted, got), (wanted32, got32) = (
        [
            evaluated(network.to(dtype), pair.family, [p[side] for p in pairs])
            for side, network in enumerate((theirs, ours))
        ]
        for dtype in (torch.float64, torch.float32)
    )
    assert max(distance(got, wanted)) < 1e-12
    assert wanted32[0].dtype == got32[0].dtype == torch.float32
    for mine, his in zip(
        distance(got32, wanted), distance(wanted32, wanted), strict=True
    ):
        assert mine < 4 * his + 1e-6


def test_a_training_run_follows_theirs() -> None:
    """Ten steps of AdamW with equal data end at equal tensors."""
    pair = PAIRS["llama-lora"]
    theirs, ours = theirs_and_ours(pair, torch.float64)
    pairs = matched(pair, theirs.double(), ours)
    import_theirs(pairs)
    for network, side in ((theirs, 0), (ours, 1)):
        optimizer = torch.optim.AdamW([p[side] for p in pairs], lr=1e-3)
        for step in range(10):
            ids = tokens(seed=step)
            network(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for parameter, mine in pairs:
        assert relative(mine.detach(), parameter.detach()) < 1e-10
