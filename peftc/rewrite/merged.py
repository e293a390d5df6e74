"""An attention to its own keys and, beside it, to a few that every query sees.

In: query, key and value of a fused attention, [b, h, t, d], and the keys and values
that are added, [shared heads, p, d].  Out: what an attention gives to which the added
ones belong; own keys and values are not copied.  The fused kernel runs on these, as the
model calls it, and products of matrices on those; log-sum-exps merge the two:

    total = log(exp(own) + sum exp(q @ keys));  l = exp(own - total)
    out = l * kernel(q, k, v) + exp(q @ keys - total) @ values

The backward of the kernel reads its mixture and its log-sum-exp, and is right with the
merged ones in their place: exp(score - total) is the part of an own key in the softmax,
and the sum of dy * out is the same for all keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import GradientsOnce
from peftc.rewrite.attention_kernels import KERNELS, Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from peftc.rewrite.attention_kernels import Kernel, Own

LEAST = 1 << 17
"""How many numbers keys have, for one query each, from which on it pays not to copy
them; measured."""


@dataclass(frozen=True)
class Merged:
    """A function of query, key, value, added keys and values, and the call's mask."""

    scale: float
    is_causal: bool

    @property
    def __name__(self) -> str:
        """For printed graphs."""
        return "merged_attention"

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The mixture, [b, h, t, d]."""
        own = (query, key, value)
        if not _is_long(query, key) or not _fits(own, mask):
            return longer(self, own, (keys, values), mask)
        count = query.shape[1] // keys.shape[0]
        each = (one.repeat_interleave(count, 0) for one in (keys, values))
        found: Tensor = _Step.apply(self, *own, *each, _added(mask, query))  # type: ignore[no-untyped-call]
        return found


def _is_long(query: Tensor, key: Tensor) -> bool:
    """Whether keys are long enough; lengths that a graph leaves open count as long."""
    size = key.numel()
    return query.shape[-2] != 1 or not isinstance(size, int) or size >= LEAST


def _fits(tensors: Sequence[Tensor], mask: Tensor | None) -> bool:
    """Whether torch would run the fused kernel as well."""
    is_fixed = mask is None or not mask.requires_grad
    is_laid_out = all(one.stride(-1) == 1 for one in tensors)
    return is_fixed and is_laid_out and torch.backends.cuda.flash_sdp_enabled()


def _added(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """The mask as what is added to scores, as torch makes it of one of booleans."""
    if mask is None or mask.dtype is not torch.bool:
        return mask
    zeros = torch.zeros_like(mask, dtype=like.dtype)
    return zeros.masked_fill_(~mask, -torch.inf)


def longer(
    call: Merged, own: Own, rows: tuple[Tensor, Tensor], mask: Tensor | None
) -> Tensor:
    """The same, by putting the added keys and values before the own ones."""
    query, key, _ = own
    count, size = rows[0].shape[-2], query.shape[0]
    if call.is_causal:
        lengths = (query.shape[-2], key.shape[-2])
        mask = query.new_ones(lengths, dtype=torch.bool).tril()
    if mask is not None:
        seen = True if mask.dtype is torch.bool else 0.0
        mask = mask.expand(*mask.shape[:-1], key.shape[-2])
        mask = F.pad(mask, (count, 0), "constant", seen)
    pairs = zip(rows, own[1:], strict=True)
    key, value = (
        torch.cat([added.expand(size, -1, -1, -1), one], -2) for added, one in pairs
    )
    return F.scaled_dot_product_attention(
        query, key, value, mask, scale=call.scale, enable_gqa=True
    )


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Merged, *given: Any) -> Tensor:
        query, key, value, keys, values, mask = given
        scores = Scores(call.scale, call.is_causal, mask)
        out, own = _kernel(query).forward((query, key, value), scores)
        added = torch.bmm(_flat(query, own.dtype), _scaled(keys, call, own.dtype).mT)
        both = torch.cat([added, _flat(own.unsqueeze(-1))], -1)
        is_trained = any(ctx.needs_input_grad)
        weights, total = _softmax(both) if is_trained else (both.softmax(-1), None)
        out = _mixed(out, weights, values)
        ctx.call = call
        if total is not None:
            total = _back(total, query).squeeze(-1)
            is_own = any(ctx.needs_input_grad[1:4])
            kept = (key, value, mask) if is_own else (None, None, None)
            ctx.save_for_backward(query, *kept, keys, values, out, total)
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise fail(GradientsOnce())
        query, key, value, mask, keys, values, out, total = ctx.saved_tensors
        scores = Scores(ctx.call.scale, ctx.call.is_causal, mask)
        own: Sequence[Tensor | None] = (None, None, None)
        if key is not None:
            inputs, made = (query, key, value), (out, total)
            own = _kernel(query).backward(dy, inputs, made, scores)
        scaled = _scaled(keys, ctx.call, total.dtype)
        part, slope = _parts((query, scaled, values), dy, out, total)
        dq, dk, dv = own
        dq = None if dq is None else _plus(dq, slope, scaled)
        d_keys = torch.bmm(slope.mT, _flat(query, total.dtype)).mul_(ctx.call.scale)
        d_values = torch.bmm(part.mT, _flat(dy, total.dtype))
        return None, dq, dk, dv, d_keys.to(keys.dtype), d_values.to(values.dtype), None


def _parts(
    given: tuple[Tensor, Tensor, Tensor], dy: Tensor, out: Tensor, total: Tensor
) -> tuple[Tensor, Tensor]:
    """The parts of the added keys in the softmax, and the slopes of their scores."""
    query, keys, values = given
    wide, size = total.dtype, _flat(total.unsqueeze(-1))
    parts = torch.baddbmm(size, _flat(query, wide), keys.mT, beta=-1).exp_()
    mean = _flat((dy * out).sum(-1, keepdim=True, dtype=wide))
    slopes = torch.baddbmm(mean, _flat(dy, wide), values.to(wide).mT, beta=-1)
    return parts, slopes.mul_(parts)


def _kernel(query: Tensor) -> Kernel:
    return KERNELS[query.device.type]


def _scaled(keys: Tensor, call: Merged, dtype: torch.dtype) -> Tensor:
    return keys.to(dtype) * call.scale


def _softmax(both: Tensor) -> tuple[Tensor, Tensor]:
    """Softmax and log-sum-exp of the last axis, which is written over."""
    top = both.amax(-1, keepdim=True)
    parts = both.sub_(top).exp_()
    sizes = parts.sum(-1, keepdim=True)
    return parts.div_(sizes), top.add_(sizes.log())


def _mixed(own: Tensor, weights: Tensor, values: Tensor) -> Tensor:
    """Own and added mixtures by weights, of which the last are those of the own."""
    part = _back(weights[..., -1:], own).to(own.dtype)
    return _plus(own.mul_(part), weights[..., :-1], values)


def _plus(total: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """`total` [b, h, t, d], written over, and a product by heads."""
    product = torch.bmm(left.to(total.dtype), right.to(total.dtype))
    return total.add_(_back(product, total))


def _flat(values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """[b, h, t, d] as [h, b * t, d]: no copy of what linears give."""
    return values.transpose(0, 1).flatten(1, 2).to(dtype or values.dtype)


def _back(values: Tensor, like: Tensor) -> Tensor:
    """[h, b * t, d] as [b, h, t, d]."""
    apart: Tensor = values.unflatten(1, (like.shape[0], -1))
    return apart.transpose(0, 1)
