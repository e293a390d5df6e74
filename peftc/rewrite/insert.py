"""Inserting nodes into a captured graph.

In: a place in a graph as Dynamo captured it.  Out: nodes that carry all that the
compilers behind Dynamo expect: `example_value`, computed by the graph's own fake
tensors (without it the AOTAutograd cache is bypassed), the module stack of the place,
and our marks `peftc.site` and `peftc.span`.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.amp.autocast_mode import _enter_autocast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BOTH = " + "
"""Between the sites, or the lines of text, that a node is there for."""

Target: TypeAlias = "Callable[..., Any] | str"
"""A function, or the name of a method of the first argument."""


def example(node: fx.Node) -> torch.Tensor:
    """The fake tensor that stands for a node's value."""
    value = node.meta["example_value"]
    assert isinstance(value, torch.Tensor)
    return value


@dataclass(frozen=True)
class Inserter:
    """Puts nodes before `before`, marked as belonging to `site`.

    `like` is the node of the model whose place in the module tree the new nodes share.
    """

    before: fx.Node
    site: str
    like: fx.Node
    span: str = ""

    def of(self, span: str) -> Inserter:
        """The same place, for nodes that stem from `span` of the user's text."""
        return replace(self, span=span) if span else self

    def put(self, target: Target, *args: Any, **kwargs: Any) -> fx.Node:
        """Insert a call and compute its example value."""
        node = self._create(target, args, kwargs)
        node.meta["example_value"] = _value(node)
        return node

    def put_as(self, value: Any, target: Target, *args: Any) -> fx.Node:
        """Insert a call whose example value is known: to compute it takes time."""
        node = self._create(target, args, {})
        node.meta["example_value"] = value
        return node

    def _create(
        self, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> fx.Node:
        op = "call_method" if isinstance(target, str) else "call_function"
        graph = self.before.graph
        with graph.inserting_before(self.before):
            node = graph.create_node(op, target, args, kwargs)
        for name in ("nn_module_stack", "stack_trace"):
            if name in self.like.meta:
                node.meta[name] = self.like.meta[name]
        node.meta["peftc.site"] = self.site
        node.meta["peftc.span"] = self.span
        return node

    def cast(self, node: fx.Node, dtype: torch.dtype) -> fx.Node:
        """`node` in `dtype`; itself if it is that, or where autocast decides."""
        value = example(node)
        if value.dtype == dtype or self.is_autocast(value.device.type):
            return node
        return self.put("to", node, dtype)

    def is_autocast(self, device: str) -> bool:
        """Whether autocast decides types here."""
        with _regions(self.before):
            return torch.is_autocast_enabled(device)


def length(node: fx.Node, axis: int, at: Inserter) -> int | fx.Node:
    """The size of an axis; of one that the graph does not fix, a node."""
    size = example(node).shape[axis]
    return size if isinstance(size, int) else at.put("size", node, axis)


def _value(node: fx.Node) -> Any:
    args, kwargs = fx.node.map_arg(
        (node.args, node.kwargs), lambda n: n.meta["example_value"]
    )
    with _fake_mode(node.graph), enable_python_dispatcher(), _regions(node):
        if isinstance(node.target, str):
            return getattr(args[0], node.target)(*args[1:], **kwargs)
        return node.target(*args, **kwargs)


def _fake_mode(graph: fx.Graph) -> FakeTensorMode:
    """The mode of the graph's fake tensors: all are of one."""
    values = (node.meta.get("example_value") for node in graph.nodes)
    return next(value.fake_mode for value in values if isinstance(value, FakeTensor))


@contextmanager
def _regions(node: fx.Node) -> Iterator[None]:
    """The autocast regions of the model's own code that are open at a node."""
    enters = node.graph.find_nodes(op="call_function", target=_enter_autocast)
    with ExitStack() as stack:
        for enter in enters:
            if enter < node and not any(leave < node for leave in enter.users):
                stack.enter_context(torch.autocast(*enter.args))
        yield


Repeat: TypeAlias = "Callable[[fx.Node, tuple[Any, ...], dict[str, Any]], fx.Node]"
"""Inserts a node once more, with other arguments."""


def replay(
    last: fx.Node,
    known: dict[fx.Node, fx.Node],
    span: tuple[fx.Node, fx.Node],
    repeat: Repeat,
) -> fx.Node:
    """Compute `last` again with other values for the nodes in `known`.

    `span` is (start, point): nodes before `start` are used as they are; a later one is
    repeated if it depends on one that is known or repeated, or if it comes at or after
    `point`, where the repeated nodes are going to stand.
    """
    start, point = span
    if last in known or last < start:
        return known.get(last, last)
    for node in last.all_input_nodes:
        replay(node, known, span, repeat)
    if last < point and not any(node in known for node in last.all_input_nodes):
        return last
    args = fx.node.map_arg(last.args, lambda n: known.get(n, n))
    kwargs = fx.node.map_arg(last.kwargs, lambda n: known.get(n, n))
    known[last] = repeat(last, args, kwargs)
    return known[last]
