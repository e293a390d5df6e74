"""Prefix tuning agrees with Hugging Face PEFT's, in float64 up to its rounding.

PEFT puts the rows into the cache of keys and values; what that means per family:

- decoders: every self-attention, real tokens begin at position p (`positions=shift`);
  Llama has rows of the width of its shared key and value heads;
- BERT: the same, through the cache that its attentions accept;
- T5: the decoder's self-attentions only, neither the encoder's nor the cross
  attentions.  PEFT 0.21 doubles its rows and cuts them for four tensors a layer, so
  layer i gets those of layer 2i modulo the number of layers.  T5's bias by distance
  reaches its rows, but not ours: here the bias is 0 away from the diagonal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model

import peftc
from tests.models import model, randomise, relative, tokens

pytestmark = pytest.mark.slow

P, MLP, LAYERS = 3, 6, 2


@dataclass(frozen=True)
class Stack:
    """Whose attentions PEFT extends, and by rows of which layers and which width."""

    owner: str
    width: int
    task: str = "CAUSAL_LM"
    scope: str = ""
    layers: tuple[int, ...] = (0, 1)


STACKS = {
    "llama": Stack("model.layers.{}.self_attn.o_proj", 32),
    "gpt2": Stack("transformer.h.{}.attn.c_proj", 64),
    "bert": Stack(
        "bert.encoder.layer.{}.attention.output.dense", 64, "FEATURE_EXTRACTION"
    ),
    "t5": Stack(
        "decoder.block.{}.layer.0.SelfAttention.o",
        64,
        "SEQ_2_SEQ_LM",
        " @ dec @ self",
        (0, 0),
    ),
}


def base(family: str, attention: str) -> Any:
    made = model(family)
    made.set_attn_implementation(attention)
    if family == "t5":
        bias = made.decoder.block[0].layer[0].SelfAttention.relative_attention_bias
        torch.nn.init.zeros_(bias.weight[1:])
    return made.double()


def theirs(family: str, attention: str, mlp: int) -> Any:
    config = PrefixTuningConfig(
        task_type=STACKS[family].task,
        num_virtual_tokens=P,
        prefix_projection=bool(mlp),
        encoder_hidden_size=mlp or 1,
    )
    made = get_peft_model(base(family, attention), config).double().eval()
    randomise(made, scale=0.5)
    return made


def ours(family: str, attention: str, mlp: int) -> Any:
    stack = STACKS[family]
    spec = f"prefix(p={P}, mlp={mlp}, embed={stack.width})" if mlp else f"prefix(p={P})"
    return peftc.compile(base(family, attention), spec + stack.scope)


def pieces(family: str, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Their tensors under our names: [p, layers * 2 * width] side by side, or the MLP
    that makes these."""
    stack = STACKS[family]
    sites = [f"{stack.owner.format(i)}.peftc.attention.prefix" for i in range(LAYERS)]
    if "transform.0.weight" not in given:
        rows = given["embedding.weight"].view(P, LAYERS, 2, stack.width)
        return _of_layers(sites, stack, rows.movedim(0, 2), "KV")
    shared = {
        "E": given["embedding.weight"],
        "A": given["transform.0.weight"],
        "a": given["transform.0.bias"],
    }
    matrix = given["transform.2.weight"].view(LAYERS, 2, stack.width, -1)
    offset = given["transform.2.bias"].view(LAYERS, 2, stack.width)
    return {
        **{f"{sites[0]}.{name}": tensor for name, tensor in shared.items()},
        **_of_layers(sites, stack, matrix, "KV"),
        **_of_layers(sites, stack, offset, ("k0", "v0")),
    }


def _of_layers(
    sites: list[str], stack: Stack, tensor: torch.Tensor, names: Any
) -> dict[str, torch.Tensor]:
    return {
        f"{site}.{name}": tensor[stack.layers[layer], kind]
        for layer, site in enumerate(sites)
        for kind, name in enumerate(names)
    }


def inputs(family: str, side: str) -> dict[str, torch.Tensor]:
    """The second sample is padded; a decoder is told the positions of real tokens."""
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, slice(0, 3) if side == "left" else slice(6, None)] = 0
    found = {"input_ids": tokens(), "attention_mask": mask}
    if family == "t5":
        found["decoder_input_ids"] = tokens(length=7, seed=4)
    elif family != "bert":
        found["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    return found


def own(network: Any) -> dict[str, Any]:
    return {
        name.removeprefix("prompt_encoder.default."): parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad
    }


CASES = [
    ("llama", "sdpa", 0),
    ("llama", "eager", MLP),
    ("gpt2", "eager", 0),
    ("gpt2", "sdpa", MLP),
    ("bert", "sdpa", 0),
    ("bert", "eager", MLP),
    ("t5", "sdpa", 0),
    ("t5", "eager", MLP),
]


@pytest.mark.parametrize(("family", "attention", "mlp"), CASES)
def test_logits_and_gradients_agree(family: str, attention: str, mlp: int) -> None:
    his, mine = theirs(family, attention, mlp), ours(family, attention, mlp)
    given, named = own(his), own(mine)
    with torch.no_grad():
        values = pieces(family, given)
        assert values.keys() == named.keys()
        for name, value in values.items():
            named[name].copy_(value)
    for side in ("right", "left"):
        batch = inputs(family, side)
        logits = [network(**batch).logits for network in (his, mine)]
        assert relative(logits[1], logits[0]) < 1e-12
        wanted, got = (
            torch.autograd.grad(one.square().mean(), list(parameters.values()))
            for one, parameters in zip(logits, (given, named), strict=True)
        )
        assert_gradients(
            pieces(family, dict(zip(given, wanted, strict=True))),
            summed(family, dict(zip(named, got, strict=True))),
        )


def summed(family: str, found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """T5's layers have one set of rows in PEFT: its gradient is the sum of ours."""
    if family != "t5":
        return found
    first, second = (STACKS[family].owner.format(i) for i in range(LAYERS))
    return {
        name: gradient + found.get(name.replace(first, second), 0)
        for name, gradient in found.items()
        if name.startswith(first)
    }


def assert_gradients(
    wanted: dict[str, torch.Tensor], got: dict[str, torch.Tensor]
) -> None:
    for name, gradient in got.items():
        assert relative(gradient, wanted[name]) < 1e-11, name


def test_cached_generation_agrees() -> None:
    """Greedy, padded on the left; PEFT's cache holds the rows, and ours does not."""
    his, mine = theirs("gpt2", "sdpa", 0), ours("gpt2", "sdpa", 0)
    named = own(mine)
    with torch.no_grad():
        for name, value in pieces("gpt2", own(his)).items():
            named[name].copy_(value)
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, :2] = 0
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    made = [
        network.generate(input_ids=tokens(length=5), attention_mask=mask, **options)
        for network in (his, mine)
    ]
    assert torch.equal(*made)
