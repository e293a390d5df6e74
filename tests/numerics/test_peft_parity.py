"""Agreement with Hugging Face PEFT, an independent implementation.

The same base, PEFT's tensors copied into ours: logits and gradients are equal.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model

import peftc
from tests.models import model, randomise, relative, tokens


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


def lora(targets: list[str], **more: Any) -> LoraConfig:
    facts: dict[str, Any] = {"r": 4, "lora_alpha": 6, "target_modules": targets}
    return LoraConfig(**(facts | more))


def ia3(targets: list[str], feedforward: list[str]) -> IA3Config:
    return IA3Config(target_modules=targets, feedforward_modules=feedforward)


CONV = {"fan_in_fan_out": True}
PAIRS = {
    "llama-lora": Pair(
        "llama", "lora(q, v, r=4, alpha=6)", lora(["q_proj", "v_proj"]), LORA
    ),
    "llama-lora-all": Pair(
        "llama",
        "lora(linear, r=4, alpha=6)",
        lora(
            [
                "q_proj",
                "k_proj",
                "v_proj",
                "o_proj",
                "gate_proj",
                "up_proj",
                "down_proj",
            ]
        ),
        LORA,
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
    "gpt2-lora": Pair(
        "gpt2",
        'lora("*.attn.c_attn", o, r=4, alpha=6)',
        lora(["attn.c_attn", "attn.c_proj"], **CONV),
        LORA,
    ),
    "gpt2-ia3": Pair(
        "gpt2",
        'ia3("*.attn.c_attn", ffn)',
        IA3Config(
            target_modules=["attn.c_attn", "mlp.c_proj"],
            feedforward_modules=["mlp.c_proj"],
            fan_in_fan_out=True,
        ),
        IA3,
    ),
    "bert-lora": Pair(
        "bert", "lora(q, v, r=4, alpha=6)", lora(["query", "value"]), LORA
    ),
    "bert-ia3": Pair(
        "bert",
        "ia3(k, v, ffn)",
        ia3(["key", "value", "output.dense"], ["output.dense"]),
        IA3,
    ),
}
BERT_FFN = r".*layer\.\d+\.output\.dense|.*\.(key|value)"


def theirs_and_ours(pair: Pair) -> tuple[Any, Any]:
    config = copy.deepcopy(pair.config)
    if pair.family == "bert" and "ia3" in pair.spec:  # not attention.output.dense
        config.target_modules = BERT_FFN
        config.feedforward_modules = r".*layer\.\d+\.output\.dense"
    theirs = get_peft_model(model(pair.family), config).eval()
    ours = peftc.compile(model(pair.family), pair.spec)
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


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_logits_and_gradients_agree(pair: Pair) -> None:
    theirs, ours = theirs_and_ours(pair)
    pairs = matched(pair, theirs, ours)
    with torch.no_grad():
        for parameter, mine in pairs:
            mine.copy_(parameter.reshape(mine.shape))
    outputs = [network(tokens()).logits for network in (theirs, ours)]
    assert relative(outputs[1], outputs[0]) < 1e-5
    for logits in outputs:
        logits.square().mean().backward()
    for parameter, mine in pairs:
        assert relative(mine.grad, parameter.grad.reshape(mine.shape)) < 1e-4


def test_a_training_run_follows_theirs() -> None:
    """Ten steps of AdamW with equal data end at equal tensors."""
    pair = PAIRS["llama-lora"]
    theirs, ours = theirs_and_ours(pair)
    pairs = matched(pair, theirs, ours)
    with torch.no_grad():
        for parameter, mine in pairs:
            mine.copy_(parameter)
    for network, side in ((theirs, 0), (ours, 1)):
        optimizer = torch.optim.AdamW([p[side] for p in pairs], lr=1e-3)
        for step in range(10):
            ids = tokens(seed=step)
            network(ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    for parameter, mine in pairs:
        assert relative(mine.detach(), parameter.detach()) < 1e-3
