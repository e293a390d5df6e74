"""A rewritten graph run operation by operation, until one makes what is not finite.

In: a captured graph after all passes.  Out: a callable that gives what the graph gives,
or raises at the first operation whose result has NaN or infinity though nothing that it
was given has; or at a parameter that has them.

Infinity that a graph writes down itself, as masks do, is meant: it is not looked at,
and neither is what follows from an argument of the forward that holds any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from peftc.diagnostics.core import fail
from peftc.diagnostics.runtime import NotFiniteHere
from peftc.rewrite.print import op_name, source_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


NAMES = "peftc.names"
"""In the `meta` of a captured graph: what its placeholders are, by their names."""


def watched(gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
    """What runs a graph and watches it."""
    names = {**source_names(gm.graph), **gm.meta.get(NAMES, {})}

    def run(*args: Any) -> Any:
        return Watch(gm, names).run(*args)

    return run


@dataclass
class State:
    """What the values of some nodes hold that is not finite."""

    nan: set[fx.Node] = field(default_factory=set)
    infinite: set[fx.Node] = field(default_factory=set)

    def note(self, node: fx.Node, value: Any) -> None:
        """Look at the value of a node."""
        tensors = [t for t in pytree.tree_leaves(value) if _has_fractions(t)]
        if any(torch.isnan(tensor).any() for tensor in tensors):
            self.nan.add(node)
        if any(torch.isinf(tensor).any() for tensor in tensors):
            self.infinite.add(node)

    def what(self, node: fx.Node) -> str:
        """`NaN` or `infinity` where that begins at a node; else nothing."""
        given = node.all_input_nodes
        before = any(one in self.nan or one in self.infinite for one in given)
        if node in self.nan and not any(one in self.nan for one in given):
            return "NaN"
        meant = before or _writes_infinity(node)
        return "infinity" if node in self.infinite and not meant else ""


class Watch(fx.Interpreter):
    """Runs a graph once."""

    def __init__(self, gm: fx.GraphModule, names: Mapping[str, str]) -> None:
        super().__init__(gm)
        self.names = names
        self.state = State()

    def run_node(self, n: fx.Node) -> Any:
        """Run one node.

        Raises:
            PeftcError: PEFT617 if its value is the first that is not finite.
        """
        value = super().run_node(n)
        if not n.users or n.op == "output":
            return value
        self.state.note(n, value)
        what = self.state.what(n)
        if what and (n.op != "placeholder" or isinstance(value, torch.nn.Parameter)):
            raise fail(NotFiniteHere(what=what, place=self._place(n)))
        return value

    def _place(self, node: fx.Node) -> str:
        """Where a node is, for people: its module or site, and what it does."""
        if node.op == "placeholder":
            return f"`{self.names.get(node.name, node.name)}`"
        stack = list(node.meta.get("nn_module_stack", {}).values())
        module = _path(stack[-1][0]) if stack else ""
        where = str(node.meta.get("peftc.site", "")) or module or "outside its modules"
        return f"`{where}` (`{op_name(node)}`)"


def _path(source: str) -> str:
    """`L['self']._modules['a']._modules['0']` and `L['self'].a[0]` are `a.0`."""
    plain = source.replace("L['self']", "").replace("._modules['", ".")
    return plain.replace("']", "").replace("[", ".").replace("]", "").strip(".")


def _has_fractions(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _writes_infinity(node: fx.Node) -> bool:
    leaves = pytree.tree_leaves((node.args, node.kwargs))
    return any(isinstance(leaf, float) and math.isinf(leaf) for leaf in leaves)
