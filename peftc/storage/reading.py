"""Reading a weight that is kept in codes: what stands in the graph in its place.

In: the tensors a format keeps, in the order of `Form.parts`.  Out: the weight, or a
product with it.  A product keeps the codes for the backward and not the weight, which
is decoded once more there; gradients go to the activation, none to the weight.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.nn.functional as F

from peftc.storage.table import form_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peftc.storage.table import Shape

Kind: TypeAlias = "tuple[str, Shape, torch.dtype]"
"""The form's text, the shape that was encoded, and the dtype of the weight."""


def encoded(form: str, weight: torch.Tensor) -> Mapping[str, torch.Tensor]:
    """What a form keeps of a weight [*lead, out, in]."""
    read = form_of(form)
    module = importlib.import_module(read.format.module)
    with torch.no_grad():
        found: Mapping[str, torch.Tensor] = module.encode(weight, dict(read.options))
    return found


def decoded(
    form: str, shape: Shape, dtype: torch.dtype, *parts: torch.Tensor
) -> torch.Tensor:
    """The weight [*lead, out, in] in the type it had, rounded to that of `compute`."""
    return _in_compute(form, shape, dtype, parts).to(dtype)


def _in_compute(
    form: str, shape: Shape, dtype: torch.dtype, parts: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    read = form_of(form)
    module = importlib.import_module(read.format.module)
    named = dict(zip((p.name for p in read.parts(shape)), parts, strict=True))
    with torch.no_grad():
        weight = module.decode(named, shape, dict(read.options))
        to = dtype if read.compute == "base" else getattr(torch, read.compute)
        result: torch.Tensor = weight.to(to)
    return result


class _Product(torch.autograd.Function):
    """x W^T + bias, of which only the codes are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        bias: torch.Tensor | None,
        kind: Kind,
        *parts: torch.Tensor,
    ) -> torch.Tensor:
        ctx.kind, ctx.dtype = kind, x.dtype
        ctx.save_for_backward(*parts)
        weight = _in_compute(*kind, parts)
        if form_of(kind[0]).compute == "base":
            return F.linear(x, weight, bias)
        offset = None if bias is None else bias.to(weight.dtype)
        return F.linear(x.to(weight.dtype), weight, offset).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:
        into_x = into_bias = None
        parts = ctx.saved_tensors  # asking twice is not allowed under checkpointing
        if ctx.needs_input_grad[0]:
            form, shape, dtype = ctx.kind
            weight = _in_compute(form, shape, dtype, parts)
            into_x = (gradient.to(weight.dtype) @ weight).to(ctx.dtype)
        if ctx.needs_input_grad[1]:
            into_bias = gradient.flatten(0, -2).sum(0)
        return (into_x, into_bias, None, *(None for _ in parts))


def stored_linear(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    form: str,
    shape: Shape,
    dtype: torch.dtype,
    *parts: torch.Tensor,
) -> torch.Tensor:
    """x[*, in] times the weight [out, in], and the bias."""
    run: Callable[..., torch.Tensor] = _Product.apply
    return run(x, bias, (form, shape, dtype), *parts)
