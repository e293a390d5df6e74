"""A compiled mixture of experts: counts, identity, gradients, files and merging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PhimoeConfig,
    PhimoeForCausalLM,
)

import peftc
from peftc.plan.parse import parse_plan
from peftc.plan.print import plan_text

if TYPE_CHECKING:
    from pathlib import Path

EXPERTS, WIDTH, INNER, R = 4, 32, 48, 3
FACTS: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "pad_token_id": 0,
}
SPEC = f"lora(experts.up, experts.down, r={R}) + ia3(experts.gate)"
BIASED = f"{SPEC} + bitfit(experts.down)"
IDS = torch.arange(3, 19).view(2, 8)


def mixtral(implementation: str = "grouped_mm") -> Any:
    torch.manual_seed(0)
    config = MixtralConfig(**FACTS)
    config._experts_implementation = implementation
    return MixtralForCausalLM(config).eval()


def gpt_oss() -> Any:
    torch.manual_seed(0)
    config = GptOssConfig(**FACTS, head_dim=8, layer_types=["full_attention"])
    config._attn_implementation = "eager"
    model = GptOssForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def logits(model: Any) -> torch.Tensor:
    value: torch.Tensor = model(input_ids=IDS).logits
    return value


def trained(model: Any) -> dict[str, nn.Parameter]:
    """The added tensors, made random."""
    added = {n: p for n, p in model.named_parameters() if ".peftc." in n}
    torch.manual_seed(1)
    for parameter in added.values():
        nn.init.normal_(parameter, std=0.2)
    return added


@pytest.mark.parametrize("kind", ["grouped_mm", "batched_mm", "biased"])
def test_from_start_to_merged(kind: str, tmp_path: Path) -> None:
    model = gpt_oss() if kind == "biased" else mixtral(kind)
    base = logits(model)
    peftc.compile(model, BIASED if kind == "biased" else SPEC)
    handle, plan = model.peftc, model.peftc.plan
    low_rank, biases = 2 * EXPERTS * R * (WIDTH + INNER), EXPERTS * WIDTH
    assert plan.trainable == low_rank + EXPERTS * INNER + biases * (kind == "biased")
    assert parse_plan(plan_text(plan)) == plan
    assert torch.equal(logits(model), base)

    added = trained(model)
    changed = logits(model)
    changed.sum().backward()
    assert not torch.allclose(changed, base, atol=1e-3)
    assert {n for n, p in model.named_parameters() if p.grad is not None} == set(added)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in added.values())

    handle.save(tmp_path)
    again = gpt_oss() if kind == "biased" else mixtral(kind)
    peftc.load(again, tmp_path)
    assert torch.equal(logits(again), changed)
    handle.merge()
    torch.testing.assert_close(logits(model), changed, rtol=1e-5, atol=1e-6)
    handle.unmerge()
    assert torch.equal(logits(model), changed)


def test_a_method_at_the_block_reaches_its_experts() -> None:
    model = mixtral()
    peftc.compile(model, "ia3(k, ffn)")
    keys = WIDTH // 2
    assert model.peftc.plan.trainable == keys + EXPERTS * INNER
    assert {r.site.role for r in model.peftc.plan.rewrites} == {"k", "experts.down"}


def test_every_expert_is_drawn_for_itself() -> None:
    model = mixtral()
    peftc.compile(model, "lora(experts.up, r=2) + dora(experts.down, r=2)")
    (owner,) = (m for n, m in model.named_modules() if n.endswith("experts"))
    first = owner.peftc.experts_up.lora.A
    assert first.shape == (EXPERTS, 2, WIDTH)
    assert len({float(row[0, 0]) for row in first}) == EXPERTS
    assert first.abs().max() <= (1 / WIDTH) ** 0.5  # the fan-in of one expert
    norms = owner.down_proj.detach().norm(dim=-1)
    torch.testing.assert_close(owner.peftc.experts_down.dora.m.detach(), norms)


def phimoe() -> Any:
    """Its router draws in training, among experts that are near enough (all here), and
    its gradient is no derivative of what it computes."""
    torch.manual_seed(0)
    model = PhimoeForCausalLM(PhimoeConfig(**FACTS, router_jitter_noise=2.0))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.train()


def gradients(model: Any, *tensors: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(5)
    value = model(input_ids=IDS, use_cache=False).logits
    weights = torch.linspace(-1, 1, value.numel()).view_as(value)
    return list(torch.autograd.grad((value * weights).sum(), tensors))


@pytest.mark.slow
def test_a_router_with_a_gradient_of_its_own() -> None:
    model, by_hand = phimoe(), phimoe()
    peftc.compile(model, f"lora(q, r={R}, alpha={R})")
    added = trained(model)
    mine = gradients(model, *added.values())

    a, b = (tensor.detach().clone().requires_grad_() for tensor in added.values())
    q = by_hand.model.layers[0].self_attn.q_proj
    q.register_forward_hook(lambda _, given, y: y + given[0] @ a.T @ b.T)
    theirs = gradients(by_hand, a, b)
    for one, other in zip(mine, theirs, strict=True):
        assert other.abs().max() > 1
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)

    plain = gradients(by_hand.eval(), a, b)
    assert not torch.allclose(plain[1], theirs[1], rtol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_base_in_bfloat16(dtype: str) -> None:
    """The graph's own grouped product takes bfloat16 of some sizes alone."""
    model = mixtral().to(torch.bfloat16)
    base = logits(model)
    peftc.compile(model, f"lora(experts.up, experts.down, r={R})", dtype=dtype)
    assert torch.equal(logits(model), base)
    added = trained(model)
    changed = logits(model)
    changed.float().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in added.values())
    model.peftc.merge()
    torch.testing.assert_close(logits(model), changed, rtol=0.05, atol=0.02)
