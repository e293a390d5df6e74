"""A `torch.autograd.Function` in a forward keeps its own backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tests.numerics.runtime.tiny import added, compiled, hooked, llama, tokens, twin


class Straight(torch.autograd.Function):
    """Rounds; its gradient passes straight through, and is written in place."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.round(8 * x) / 8

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        passed = gradients[0].clone()
        passed.masked_fill_(x.abs() > 2, 0)
        return passed


class Rounded(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return Straight.apply(nn.functional.silu(x))  # type: ignore[no-untyped-call]


def double(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    """A hook that changes what an adapted module gave."""
    return output.mul_(2)


@pytest.fixture(scope="module")
def base() -> Any:
    model = llama(layers=2)
    for layer in model.model.layers:
        layer.mlp.act_fn = Rounded()
    return model


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("saving", [False, True])
def test_its_backward_runs(base: Any, backend: str, saving: bool) -> None:
    model = twin(base).train()
    compiled(model, backend=backend)
    reference = hooked(twin(base).requires_grad_(False), model)
    for one in (model, reference):
        one.model.layers[0].self_attn.v_proj.register_forward_hook(double)
    if saving:
        model.activation_checkpointing_enable()
    loss = model(input_ids=tokens(), labels=tokens(), use_cache=False).loss
    loss.backward()
    mine: dict[str, Any] = {name: p.grad for name, p in added(model)}
    model.zero_grad()
    expected = reference(input_ids=tokens(), labels=tokens()).loss
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-6)
    for name, parameter in added(model):
        assert parameter.grad is not None
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-5, atol=1e-7)
