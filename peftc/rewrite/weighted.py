"""Values and products where several adapters act at once, each by its weight.

In: the weights of the adapters, and values with their axis ("E").  Out: inserted nodes.
Each adapter computes what it would give alone; what it changes is its effect, and the
new value is the old one and the weighted sum of the effects.  Factors are never summed:
the product of sums is not the sum of products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from peftc.rewrite.insert import example, length
from peftc.rewrite.values import EXPERTS, Value, product

if TYPE_CHECKING:
    from torch import fx

    from peftc.rewrite.insert import Inserter


@dataclass(frozen=True)
class Weighted:
    """The adapters at one value that is replaced, with their `weights` [adapters].

    Token values that differ from adapter to adapter have their axis before all others,
    where it broadcasts.  `rank` is the number of the value's token axes; `separate`
    whether programs tell samples from tokens.
    """

    weights: fx.Node
    rank: int
    separate: bool

    of_base = False
    """Whether the base's own values have the axis."""

    @property
    def lead(self) -> str:
        """The token axes of an activation."""
        return "bt" if self.separate else "*"

    def product(self, at: Inserter, value: Value, matrix: Value) -> tuple[fx.Node, str]:
        """value[*, k] or value[adapters, *, k] times matrix[adapters, n, k]."""
        rank = len(value.lead) if self.separate else self.rank
        if example(value.node).dim() == rank + 1:
            return self._of_one(at, value, matrix), value.lead
        turned = at.put(torch.transpose, matrix.node, -2, -1)
        for _ in range(rank - 1):
            turned = at.put(torch.unsqueeze, turned, 1)
        return at.put(torch.matmul, value.node, turned), value.lead

    def _of_one(self, at: Inserter, value: Value, matrix: Value) -> fx.Node:
        """What all adapters' matrices make of one value: a single product."""
        rows = at.put(torch.flatten, matrix.node, 0, 1)
        every = at.put(F.linear, value.node, rows)
        sizes = (length(matrix.node, 0, at), matrix.shape[0])
        return at.put(torch.movedim, at.put("unflatten", every, -1, sizes), -2, 0)

    def ein(self, at: Inserter, spec: str, args: list[Value]) -> tuple[fx.Node, str]:
        """The product of token values and values of adapters, by `spec`."""
        before, _, out = spec.partition("->")
        seen = [self.seen(a, at) for a in args]
        if not self.separate:
            rows = [
                self._row(a, r) for a, r in zip(args, before.split(","), strict=True)
            ]
            return product(f"{','.join(rows)}->{out}", seen, "*", at)
        rows = [
            f"...{self._row(a, r)}"
            for a, r in zip(args, before.split(","), strict=True)
        ]
        nodes = [a.node for a in seen]
        node = at.put(torch.einsum, f"{','.join(rows)}->...{out}", *nodes)
        return node, "".join(axis for axis in "bt" if axis in out)

    def _row(self, value: Value, row: str) -> str:
        """The labels of a value that is seen."""
        return self.lead + row if value.lead == EXPERTS else row

    def seen(self, value: Value, at: Inserter) -> Value:
        """A value of adapters, so that it broadcasts over the token axes."""
        if value.lead != EXPERTS:
            return value
        node = value.node
        for _ in range(self.rank):
            node = at.put(torch.unsqueeze, node, 1)
        return replace(value, node=node, lead=self.lead if self.rank else "")

    def finish(self, value: Value, target: fx.Node, at: Inserter) -> Value:
        """The old value and the weighted sum of what the adapters change of it."""
        new = self.seen(value, at)
        effect = at.put(torch.sub, new.node, target)
        weights = at.put("to", self.weights, example(effect).dtype)
        total = at.put(torch.einsum, "m,m...->...", weights, effect)
        return replace(new, node=at.put(torch.add, target, total), lead=self.lead)
