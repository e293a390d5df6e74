"""Models nobody planned for: compiled, or refused with the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import peftc
from tests.models import model, randomise, tokens


def state(network: nn.Module) -> dict[str, Any]:
    return {
        "tensors": {n: p.clone() for n, p in network.named_parameters()},
        "flags": [p.requires_grad for p in network.parameters()],
        "modules": [n for n, _ in network.named_modules()],
        "own": sorted(network.__dict__),
        "hooks": [len(m._forward_pre_hooks) for m in network.modules()],
    }


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    tensors, others = one.pop("tensors"), other.pop("tensors")
    equal = all(torch.equal(t, others[n]) for n, t in tensors.items())
    return equal and one == other


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("lora(q, v) + lora(router)", "PEFT203"),
        ("lora(q) + krona(v, a1=5)", "PEFT301"),
        ("lora(q, r=1000000000)", "PEFT302"),
        ("lora(q) @ layers(0..5)", "PEFT205"),
    ],
)
def test_an_error_leaves_the_model_as_it_was(spec: str, code: str) -> None:
    network = model("llama")
    before = state(network)
    with pytest.raises(peftc.PeftcError, match=code):
        peftc.compile(network, spec)
    assert same(state(network), before)


def test_compiling_twice_is_refused_and_the_first_stays() -> None:
    network = peftc.compile(model("llama"), "lora(q)")
    randomise(network)
    before = network(tokens()).logits
    with pytest.raises(peftc.PeftcError, match="PEFT6"):
        peftc.compile(network, "lora(v)")
    assert torch.equal(network(tokens()).logits, before)


class Perceptron(nn.Module):
    """No transformer at all: no attention, no residual."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 4)
        self.main_input_name = "x"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.down(torch.relu(self.up(x)))
        return hidden


def test_a_module_that_is_no_transformer_is_refused_with_a_reason() -> None:
    network = Perceptron()
    before = state(network)
    with pytest.raises(peftc.PeftcError, match="PEFT"):
        peftc.compile(network, "lora(q)")
    assert same(state(network), before)


def test_a_frozen_half_precision_base_gets_float32_tensors() -> None:
    network = model("llama").to(torch.bfloat16)
    base = network(tokens()).logits
    peftc.compile(network, "lora(q, v, r=2) + ia3(k)")
    added = [p for p in network.parameters() if p.requires_grad]
    assert {p.dtype for p in added} == {torch.float32}
    out = network(tokens()).logits
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, base)
    out.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in added)


def test_the_same_seed_gives_a_site_the_same_start_whatever_else_there_is() -> None:
    alone = peftc.compile(model("llama"), "lora(q, r=2)", seed=7)
    among = peftc.compile(
        model("llama", seed=3), "ia3(k) + lora(v) + lora(q, r=2) + adapter(ffn)", seed=7
    )
    other = peftc.compile(model("llama"), "lora(q, r=2)", seed=8)
    name = "model.layers.1.self_attn.q_proj.peftc.q.lora.A"
    first = alone.get_parameter(name)
    assert torch.equal(first, among.get_parameter(name))
    assert not torch.equal(first, other.get_parameter(name))
    lower = "model.layers.0.self_attn.q_proj.peftc.q.lora.A"
    assert not torch.equal(first, alone.get_parameter(lower))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_compiled_without_gradients_it_trains_with_them(mode: Any, family: str) -> None:
    network = model(family)
    with mode():
        peftc.compile(network, "lora(q, v, r=2) + ia3(k)")
        network(tokens())
    network(tokens()).logits.square().mean().backward()
    trained = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
