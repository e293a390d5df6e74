"""Walks along the values of a graph.

In: an fx graph.  Out: what leads to a value, what lies between two values.  A write in
place (`cache.index_copy_(...)`, `x[i] = y`) counts as an input of the value it changes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.sites import ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx


def strip(node: fx.Node, through: frozenset[str]) -> fx.Node:
    """The value before the last run of operators in `through`, each of one input."""
    while ops.name(node) in through and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


@dataclass(frozen=True)
class Flow:
    """A graph's order and value edges."""

    order: dict[fx.Node, int]
    writers: dict[fx.Node, tuple[fx.Node, ...]]

    @classmethod
    def of(cls, graph: fx.Graph) -> Flow:
        """Read a graph once."""
        writers: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        for node in graph.nodes:
            if ops.is_in_place(node) and node.all_input_nodes:
                writers[node.all_input_nodes[0]].append(node)
        order = {node: i for i, node in enumerate(graph.nodes)}
        return cls(order, {n: tuple(w) for n, w in writers.items()})

    def inputs(self, node: fx.Node) -> Iterator[fx.Node]:
        """The values a value is made from."""
        yield from node.all_input_nodes
        for writer in self.writers.get(node, ()):
            yield from (n for n in writer.all_input_nodes if n is not node)

    def back(
        self, start: fx.Node, stop: Callable[[fx.Node], bool], after: int = -1
    ) -> set[fx.Node]:
        """`start` and all that leads to it, up to and with the nodes at `stop`.

        Nothing at or before place `after` in the graph's order is visited.
        """
        seen: set[fx.Node] = set()
        todo = [start]
        while todo:
            node = todo.pop()
            early = self.order[node] <= after and node not in self.writers
            if node in seen or early:
                continue
            seen.add(node)
            if not stop(node):
                todo.extend(self.inputs(node))
        return seen

    def outputs(self, node: fx.Node) -> Iterator[fx.Node]:
        """The values made from a value."""
        yield from node.users
        if ops.is_in_place(node) and node.all_input_nodes:
            yield node.all_input_nodes[0]

    def between(self, source: fx.Node, target: fx.Node) -> frozenset[fx.Node]:
        """The nodes on the ways from `source` to `target`: with `target`, not `source`.

        Empty if no way leads there.
        """
        if source is target:
            return frozenset()
        before = self.back(target, lambda n: n is source, after=self.order[source] - 1)
        on_way: set[fx.Node] = set()
        todo = [source] if source in before else []
        while todo:
            new = {n for n in self.outputs(todo.pop()) if n in before} - on_way
            on_way |= new
            todo.extend(new)
        return frozenset(on_way - {source})

    def ahead(
        self, start: fx.Node, stop: Callable[[fx.Node], bool]
    ) -> tuple[fx.Node, ...]:
        """The nodes at `stop` that `start` leads to first, in the graph's order."""
        seen: set[fx.Node] = set()
        todo = list(start.users)
        hits = []
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if stop(node):
                hits.append(node)
            else:
                todo.extend(node.users)
        return tuple(sorted(hits, key=self.order.__getitem__))
