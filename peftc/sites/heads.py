"""How many heads an attention has, and how many keys and values they share.

In: an attention.  Out: `Heads`, or the reason why it cannot be told.  Heads that share
keys (grouped and multi-query attention) are told apart by running what makes the keys
on random numbers: heads with equal numbers share them, however they are repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from peftc.sites import ops
from peftc.sites.execute import Execution, random_values, structure

if TYPE_CHECKING:
    from torch import fx

    from peftc.sites.attention import Attention
    from peftc.sites.flow import Flow


@dataclass(frozen=True)
class Heads:
    """Numbers of query heads and of key heads; widths of one head's key and value."""

    query: int
    shared: int
    key: int
    value: int

    @property
    def sizes(self) -> tuple[tuple[str, int], ...]:
        """As sizes of a site: widths are those of all distinct heads together."""
        return (
            ("heads", self.query),
            ("kv_heads", self.shared),
            ("key", self.shared * self.key),
            ("value", self.shared * self.value),
        )


def seen_heads(attention: Attention, width: int) -> Heads | None:
    """What the shapes alone tell: as if every head that is there were its own.

    None if heads are no axis of the graph's products.

    Args:
        width: of the values of all query heads side by side.
    """
    if not attention.is_plain:
        return None
    batch = _batch(attention, width)
    queries, keys, values = (
        _count(node, batch)
        for node in (attention.query, attention.key, attention.value)
    )
    if not queries or not keys or not values:
        return None
    key_axis = -1 if attention.scores is None else -2
    key, value = ops.shape(attention.key)[key_axis], ops.shape(attention.value)[-1]
    return Heads(queries, max(keys, values), key, value)


def _batch(attention: Attention, width: int) -> int:
    """The batch where heads are no axis of their own; 0 if that is not whole."""
    heads, over = divmod(width, ops.shape(attention.value)[-1])
    rows = ops.shape(attention.query)[0]
    return rows // heads if not over and heads and rows % heads == 0 else 0


def _count(node: fx.Node, batch: int) -> int:
    """Heads of [batch, heads, _, _] or [batch * heads, _, _]; 0 for another form."""
    sizes = ops.shape(node)
    if len(sizes) == 4:
        return sizes[1]
    is_whole = len(sizes) == 3 and batch and sizes[0] % batch == 0
    return sizes[0] // batch if is_whole else 0


@dataclass(frozen=True)
class HeadFinder:
    """Finds shared heads in one graph; layers of equal structure are run once."""

    flow: Flow
    ends: frozenset[fx.Node]
    known: dict[str, int] = field(default_factory=dict)

    def find(self, attention: Attention, seen: Heads) -> Heads | None:
        """The heads of an attention; None if they share keys in an unknown order."""
        keys, values = (
            self._distinct(node, seen.shared)
            for node in (attention.key, attention.value)
        )
        if not keys or keys != values or seen.query % keys:
            return None
        return replace(seen, shared=keys)

    def _distinct(self, value: fx.Node, count: int) -> int:
        """How many heads are distinct, if equal ones stand side by side; else 0."""
        starts = sorted(
            self.flow.back(value, self.ends.__contains__) & self.ends,
            key=self.flow.order.__getitem__,
        )
        between = {n for start in starts for n in self.flow.between(start, value)}
        way = sorted(between, key=self.flow.order.__getitem__)
        steps = structure(starts, way)
        if steps not in self.known:
            self.known[steps] = _groups(_run(way, value), count)
        return self.known[steps]


def _run(way: list[fx.Node], value: fx.Node) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode(False), torch.no_grad():
        execution = Execution(random_values(generator))
        execution.run(way)
        result = execution.value(value)
    assert isinstance(result, torch.Tensor)
    return result


def _groups(result: torch.Tensor, count: int) -> int:
    if result.dim() == 3:
        result = result.unflatten(0, (-1, count))
    first = result[0]
    equal = (first.unsqueeze(0) == first.unsqueeze(1)).flatten(2).all(-1)
    leaders = equal.float().argmax(-1).tolist()
    distinct = len(set(leaders))
    run = len(leaders) // distinct
    return distinct if leaders == [i // run * run for i in range(len(leaders))] else 0
