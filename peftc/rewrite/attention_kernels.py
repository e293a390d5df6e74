"""Fused attentions that tell their log-sum-exp, and their backward: a table by device.

In: query, key and value [b, h, t, d] and what the call adds to scores.  Out: the
mixture and, for each query, the log-sum-exp [b, h, t] of its scores; and back from
these the gradients of the three.  Both are torch's own operators, those that its fused
attention runs as.

The entry of CUDA was never run on a device: `rewrite.beside` does not choose it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Own: TypeAlias = "tuple[Tensor, Tensor, Tensor]"
"""Query, key and value, or the gradients of these."""

_ON_CPU = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_ON_CPU_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
_ON_CUDA = torch.ops.aten._scaled_dot_product_flash_attention
_ON_CUDA_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_backward


@dataclass(frozen=True)
class Scores:
    """What becomes of the products of queries and keys before their softmax.

    `mask` is added to them.
    """

    scale: float
    is_causal: bool = False
    mask: Tensor | None = None


@dataclass(frozen=True)
class Kernel:
    """An attention and its backward.

    `forward(own, scores)`, of query, key and value, gives the mixture and the
    log-sum-exp; `backward(dy, own, (mixture, log-sum-exp), scores)` three gradients.
    """

    forward: Callable[[Own, Scores], tuple[Tensor, Tensor]]
    backward: Callable[[Tensor, Own, tuple[Tensor, Tensor], Scores], Own]


def _on_cpu(own: Own, scores: Scores) -> tuple[Tensor, Tensor]:
    given = {"attn_mask": scores.mask, "scale": scores.scale}
    out, size = _ON_CPU(*own, 0.0, scores.is_causal, **given)
    if scores.mask is None:
        return out, size
    # Of a query whose keys are all hidden the kernel says 0.
    hidden = (scores.mask == -math.inf).all(-1)
    return out, size.masked_fill(hidden, -math.inf)


def _on_cpu_backward(
    dy: Tensor, own: Own, made: tuple[Tensor, Tensor], scores: Scores
) -> Own:
    given = {"attn_mask": scores.mask, "scale": scores.scale}
    found: Own = _ON_CPU_BACKWARD(dy, *own, *made, 0.0, scores.is_causal, **given)
    return found


def _on_cuda(own: Own, scores: Scores) -> tuple[Tensor, Tensor]:
    out, size, *_ = _ON_CUDA(*own, 0.0, scores.is_causal, scale=scores.scale)
    return out, size


def _on_cuda_backward(
    dy: Tensor, own: Own, made: tuple[Tensor, Tensor], scores: Scores
) -> Own:
    lengths = [one.shape[-2] for one in own[:2]]
    unused = dy.new_empty(0, dtype=torch.int64)  # where dropout began to draw
    options = (*lengths, 0.0, scores.is_causal, unused, unused)
    found: Own = _ON_CUDA_BACKWARD(
        dy, *own, *made, None, None, *options, scale=scores.scale
    )
    return found


KERNELS = {
    "cpu": Kernel(_on_cpu, _on_cpu_backward),
    "cuda": Kernel(_on_cuda, _on_cuda_backward),
}
"""That of CUDA takes no mask."""
