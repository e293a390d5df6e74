"""Whether the tokens of an attention see later ones.

In: an attention.  Out: whether it is causal.  A mask is run as the graph makes it, for
tokens that are all there, with zeros for what the model has learned; spelt out, all
that happens to the scores before the softmax is run on scores of zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from peftc.sites import ops
from peftc.sites.execute import Execution, neutral_values

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.flow import Flow

MASKED = 1e4
"""A score that is lower than another by this is out."""


@dataclass(frozen=True)
class MaskReader:
    """Runs the masks of one graph."""

    flow: Flow
    ends: frozenset[fx.Node]

    def is_causal(self, attention: Attention) -> bool | None:
        """Whether no query sees a later key.

        None if the graph does not tell: the numbers of a stored mask are those of a
        model with weights, and are not read.
        """
        if ops.argument(attention.out, 5, "is_causal") is True:
            return True
        made, start = _made(attention)
        if made is None:
            return False
        if _is_lower(self._run(made, start)[..., : _keys(attention)]):
            return True
        behind = self.flow.back(made, self.ends.__contains__)
        return None if any(map(_is_stored_mask, behind)) else False

    def _run(self, node: fx.Node, start: fx.Node | None = None) -> torch.Tensor:
        ends = self.ends if start is None else self.ends | {start}
        met = self.flow.back(node, ends.__contains__) - ends
        way = sorted(met, key=self.flow.order.__getitem__)
        with torch.inference_mode(False), torch.no_grad():
            execution = Execution(neutral_values)
            execution.run(way)
        result = execution.value(node)
        assert isinstance(result, torch.Tensor)
        return result


def _made(attention: Attention) -> tuple[fx.Node | None, fx.Node | None]:
    """What hides keys: the mask of a call, or the scores as the softmax reads them,
    with the product that they start from."""
    if attention.softmax is not None and attention.scores is not None:
        return ops.inputs(attention.softmax)[0], attention.scores
    mask = ops.argument(attention.out, 3, "attn_mask", "attention_mask")
    is_tensor = isinstance(mask, torch.fx.Node) and ops.tensor(mask) is not None
    return (mask if is_tensor else None), None


def _keys(attention: Attention) -> int | None:
    """Of spelt-out scores the number of keys; sinks, if any, come after them."""
    return None if attention.scores is None else ops.shape(attention.scores)[-1]


def _is_stored_mask(node: fx.Node) -> bool:
    sizes, dtype = ops.shape(node), ops.dtype(node)
    is_square = len(sizes) > 1 and sizes[-1] == sizes[-2]
    is_mask = dtype.startswith(("float", "bfloat", "bool", "uint8"))
    return bool(node.meta.get(ops.STORED)) and is_square and is_mask


def _is_lower(mask: torch.Tensor) -> bool:
    """Whether all above the diagonal of the last two axes is masked."""
    rows, columns = mask.shape[-2:]
    if rows < 2 or rows > columns:
        return False
    if mask.dtype is not torch.bool:
        mask = mask > mask.amax(-1, keepdim=True) - MASKED
    return not bool(mask.triu(columns - rows + 1).any())
