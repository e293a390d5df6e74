"""A planned step in a graph, given what an input is made from instead of the input.

In: the node of a step, and how one of its inputs is made.  Out: a node that makes it,
and makes it again in the backward; whoever read the step's values reads its.
"""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.rewrite.insert import Inserter, example
from peftc.rewrite.recomputed import Recomputed
from peftc.rewrite.step import Together

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import fx

    from peftc.rewrite.recomputed import Made


def make_input(
    node: fx.Node, made: Made, args: Sequence[fx.Node], gives: fx.Node | None = None
) -> tuple[fx.Node, Inserter]:
    """The new node, and where it stands; its last result is x, if that is given."""
    whole = _whole(node)
    before, rest = node.args[: whole.count], node.args[whole.count :]
    left = [a for i, a in zip(whole.rest, rest, strict=True) if i != made.place]
    more = Recomputed(whole.step, (*whole.made, made), whole.gives or gives is not None)
    at = Inserter(node, node.meta["peftc.site"], node, node.meta["peftc.span"])
    old = node.meta["example_value"]
    single = not isinstance(old, tuple)
    results = (old,) if single else old
    given = () if gives is None else (example(gives),)
    new = at.put_as((*results, *given), more, *before, *args, *left)
    new.meta = {**node.meta, **new.meta}
    value = at.put(operator.getitem, new, 0) if single else new
    node.replace_all_uses_with(value, propagate_meta=False)
    node.graph.erase_node(node)
    return new, replace(at, before=new.next, like=new)


def place_of(node: fx.Node, value: fx.Node) -> int | None:
    """The place among the step's inputs at which a node reads a value as it is."""
    if not isinstance(node.target, Together | Recomputed):
        return None
    whole = _whole(node)
    pairs = zip(whole.rest, node.args[whole.count :], strict=True)
    return next((place for place, arg in pairs if arg is value), None)


def _whole(node: fx.Node) -> Recomputed:
    """A node's step, with nothing made yet if it is one."""
    if isinstance(node.target, Recomputed):
        return node.target
    assert isinstance(node.target, Together)
    return Recomputed(node.target, ())
