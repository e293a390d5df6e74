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
    while ops.name(node) in through and ops.inputs(node):
        node = ops.inputs(node)[0]
    return node


def undropped(node: fx.Node) -> fx.Node:
    """The value before layout, casts and dropout, that of whole samples too."""
    node = strip(node, ops.TRANSPARENT)
    kept = [n for n in ops.inputs(node) if not ops.is_noise(n)]
    if ops.name(node) != "mul" or ops.is_unary(node) or len(kept) != 1:
        return node
    (node,) = kept
    # It is scaled up by a number for what is dropped.
    is_scaled = ops.name(node) == "div" and ops.is_unary(node)
    return undropped(ops.inputs(node)[0] if is_scaled else node)


def _written(node: fx.Node) -> Iterator[fx.Node]:
    """What a write in place changes: its operand, and what that is a view of."""
    changed = ops.inputs(node)[0]
    yield changed
    while ops.name(changed) in ops.VIEWS | ops.PIECES and ops.inputs(changed):
        changed = ops.inputs(changed)[0]
        yield changed


@dataclass(frozen=True)
class Flow:
    """A graph's order and value edges."""

    order: dict[fx.Node, int]
    writers: dict[fx.Node, tuple[fx.Node, ...]]
    written: dict[fx.Node, tuple[fx.Node, ...]]

    @classmethod
    def of(cls, graph: fx.Graph) -> Flow:
        """Read a graph once."""
        order = {node: i for i, node in enumerate(graph.nodes)}
        written = {
            node: tuple(_written(node))
            for node in graph.nodes
            if ops.is_in_place(node) and ops.inputs(node)
        }
        writers: dict[fx.Node, list[fx.Node]] = defaultdict(list)
        for writer, changed in written.items():
            for node in changed:
                writers[node].append(writer)
        return cls(order, {n: tuple(w) for n, w in writers.items()}, written)

    def inputs(self, node: fx.Node) -> Iterator[fx.Node]:
        """The values a value is made from, with the writes into them before that."""
        for given in ops.inputs(node):
            yield given
            yield from self._writes(given, node)

    def _writes(self, node: fx.Node, reader: fx.Node | None) -> Iterator[fx.Node]:
        for writer in self.writers.get(node, ()):
            if reader is None or self.order[writer] < self.order[reader]:
                yield writer

    def outputs(self, node: fx.Node) -> Iterator[fx.Node]:
        """The values made from a value, and those it is written into."""
        yield from (user for user in node.users if not ops.is_number(user))
        yield from self.written.get(node, ())

    def back(
        self,
        start: fx.Node,
        stop: Callable[[fx.Node], bool],
        after: int = -1,
        reader: fx.Node | None = None,
    ) -> set[fx.Node]:
        """`start` and all that leads to it, up to and with the nodes at `stop`.

        Nothing at or before place `after` in the graph's order is visited.  The value
        is as `reader` sees it, or as it is after all writes.
        """
        seen: set[fx.Node] = set()
        todo = [start, *self._writes(start, reader)]
        while todo:
            node = todo.pop()
            early = self.order[node] <= after and node not in self.writers
            if node in seen or early:
                continue
            seen.add(node)
            if not stop(node):
                todo.extend(self.inputs(node))
        return seen

    def between(
        self, source: fx.Node, target: fx.Node, reader: fx.Node | None = None
    ) -> frozenset[fx.Node]:
        """The nodes on the ways from `source` to `target`, as `reader` sees it: with
        `target`, not `source`.  Empty if no way leads there.
        """
        if source is target:
            return frozenset()
        after = self.order[source] - 1
        before = self.back(target, lambda n: n is source, after, reader)
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
        todo = list(self.outputs(start))
        hits = []
        while todo:
            node = todo.pop()
            if node in seen:
                continue
            seen.add(node)
            if stop(node):
                hits.append(node)
            else:
                todo.extend(self.outputs(node))
        return tuple(sorted(hits, key=self.order.__getitem__))
