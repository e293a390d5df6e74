"""Rows of a parameter that are taken before they are used.

In: a value in a graph.  Out: the parameter that it is rows of, and which.  Models keep
several matrices in one and split it (`in_proj_weight`), or put vectors together and
take them apart again; what is between is run on the numbers of the rows, so none of its
operators has to be understood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import fx

from peftc.sites import ops
from peftc.sites.execute import Execution, neutral_values

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEPS = ops.PIECES | frozenset(("cat", "contiguous", "detach"))


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a parameter."""

    parameter: fx.Node
    start: int
    stop: int

    @property
    def rows(self) -> tuple[int, int] | None:
        """The rows; None if they are all."""
        is_all = self.stop - self.start == ops.shape(self.parameter)[0]
        return None if is_all else (self.start, self.stop)


def piece_of(value: fx.Node, names: Mapping[fx.Node, str]) -> Piece | None:
    """The rows, one after another, of one parameter that a value consists of."""
    if value in names:  # what is not cut is not looked at: it may be large
        return Piece(value, 0, ops.shape(value)[0])
    way: set[fx.Node] = set()
    todo = [value]
    while todo:
        node = todo.pop()
        if node in way:
            continue
        if node not in names and ops.name(node) not in _STEPS:
            return None
        way.add(node)
        todo.extend(ops.inputs(node))
    parameters = sorted(node for node in way if node in names)
    return _told(value, parameters, sorted(way - {*parameters}))


def _told(
    value: fx.Node, parameters: list[fx.Node], way: list[fx.Node]
) -> Piece | None:
    execution, offsets, total = Execution(neutral_values), {}, 0
    for parameter in parameters:
        count, *others = ops.shape(parameter)
        numbers = torch.arange(total, total + count).view(-1, *(1 for _ in others))
        execution.values[parameter] = numbers.expand(count, *others)
        offsets[parameter] = total
        total += count
    execution.run(way)
    numbers = execution.values[value]
    start = int(numbers.min()) if isinstance(numbers, torch.Tensor) else -1
    for parameter, offset in offsets.items():
        count, *others = ops.shape(parameter)
        if offset <= start < offset + count and _are_rows(numbers, start, others):
            return Piece(parameter, start - offset, start - offset + len(numbers))
    return None


def _are_rows(numbers: torch.Tensor, start: int, others: list[int]) -> bool:
    """Whether all rows are whole, and follow each other."""
    rows = torch.arange(start, start + len(numbers)).view(-1, *(1 for _ in others))
    return list(numbers.shape[1:]) == others and bool((numbers == rows).all())
