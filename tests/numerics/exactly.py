"""Random tensors, and equality of values and gradients in double precision."""

from __future__ import annotations

from typing import Any

import torch

EXACT = 1e-10


def draws(dtype: torch.dtype = torch.float64, /, **shapes: Any) -> Any:
    return {
        name: torch.randn(shape, dtype=dtype, requires_grad=True)
        for name, shape in shapes.items()
    }


def gradients(value: torch.Tensor, of: list[torch.Tensor]) -> list[torch.Tensor]:
    weight = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view(value.shape)
    return list(torch.autograd.grad((value * weight).sum(), of))


def assert_equal_with_gradients(
    one: torch.Tensor, other: torch.Tensor, of: list[torch.Tensor]
) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=EXACT)
    for a, b in zip(gradients(one, of), gradients(other, of), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=EXACT)
