"""Values and products where each sample of a batch has an adapter of its own.

In: which of the adapters each sample has, and values with an axis of adapters ("E", as
experts have).  Out: inserted nodes over the samples.  Programs are the same as for one
adapter: what has no tokens is computed once for each adapter, and products take each
sample's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.rewrite import SamplesMixed, SamplesNotFirst
from peftc.rewrite.insert import example
from peftc.rewrite.values import EXPERTS, Value, product

if TYPE_CHECKING:
    from torch import fx

    from peftc.expr.program import Program, Step
    from peftc.rewrite.insert import Inserter

NUMBER = "number"
"""The name of the number of each sample's adapter, [b]."""
ADAPTED = "adapted"
"""The name of whether each sample has an adapter at all, [b]; of others' numbers
nothing is meant."""


@dataclass(frozen=True)
class Samples:
    """The adapters of the samples at one value that is replaced.

    `rank` is the number of its token axes, of which the first is that of samples;
    `separate` whether programs tell samples from tokens.
    """

    number: fx.Node
    adapted: fx.Node | None
    rank: int
    separate: bool

    of_base = False
    """Whether the base's own values have the axis."""

    def check(self, target: fx.Node, site: str) -> None:
        """Refuse a value whose first axis is not that of samples.

        Raises:
            PeftcError: PEFT458.
        """
        sizes, batch = example(target).shape, example(self.number).shape[0]
        if len(sizes) < 2 or sizes[0] != batch:
            raise fail(SamplesNotFirst(site=site, shape=str(tuple(sizes))))

    def product(self, at: Inserter, value: Value, matrix: Value) -> tuple[fx.Node, str]:
        """value[b, *, k] times matrix[adapters, n, k]: [b, *, n]."""
        own = at.put(torch.index_select, matrix.node, 0, self.number)
        turned = at.put(torch.transpose, own, -2, -1)
        rank = example(value.node).dim() - len(value.shape)
        if rank == 1:
            row = at.put(torch.unsqueeze, value.node, 1)
            return at.put(
                torch.squeeze, at.put(torch.matmul, row, turned), 1
            ), value.lead
        for _ in range(rank - 2):
            turned = at.put(torch.unsqueeze, turned, 1)
        return at.put(torch.matmul, value.node, turned), value.lead

    def ein(self, at: Inserter, spec: str, args: list[Value]) -> tuple[fx.Node, str]:
        """The product of token values and values of adapters, by `spec`."""
        before, _, out = spec.partition("->")
        axis = "b" if self.separate else "*"
        rows = before.split(",")
        labels = [
            axis + row if a.lead == EXPERTS else row
            for a, row in zip(args, rows, strict=True)
        ]
        seen = [self.seen(a, at) for a in args]
        tokens = "bt" if self.separate else "*"
        return product(f"{','.join(labels)}->{out}", seen, tokens, at)

    def seen(self, value: Value, at: Inserter) -> Value:
        """A value as the samples see it; it broadcasts over the other token axes."""
        if value.lead != EXPERTS:
            return value
        node = at.put(torch.index_select, value.node, 0, self.number)
        if self.separate:
            return replace(value, node=node, lead="b")
        for _ in range(self.rank - 1):
            node = at.put(torch.unsqueeze, node, 1)
        return replace(value, node=node, lead="*")

    def finish(self, value: Value, target: fx.Node, at: Inserter) -> Value:
        """The new value, or the base's where a sample has no adapter."""
        new, which = self.seen(value, at), self.adapted
        if which is None:
            return new
        for _ in range(example(target).dim() - 1):
            which = at.put(torch.unsqueeze, which, -1)
        node = at.put("to", new.node, example(target).dtype)
        return replace(new, node=at.put(torch.where, which, node, target))


def check_apart(program: Program, site: str) -> None:
    """Refuse a program that mixes samples.

    Raises:
        PeftcError: PEFT459.
    """
    if any(map(_mixes, program.steps)):
        raise fail(SamplesMixed(site=site))


def _mixes(step: Step) -> bool:
    """Whether a step sums over samples, or counts them."""
    before, _, out = step.spec.partition("->")
    return ("b" in before and "b" not in out) or (
        step.fn == "count" and "b" in str(step.attrs[0])
    )
