"""What values and contractions cost: a roofline over one machine.

In: concrete expressions (numbers for all sizes but the token axes).  Out: elements,
seconds, and what an expression is made of.  The numbers decide between orders that are
all correct; they promise no run time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, TypeVar

from peftc.expr.ir import Add, Axes, Ein, Leaf, Node, View
from peftc.expr.places import TOKEN_AXES

if TYPE_CHECKING:
    from collections.abc import Callable

    from peftc.expr.sizes import Size

V = TypeVar("V")

B, T = TOKEN_AXES
UNKNOWN = 1024
"""Taken for an axis whose size is not known (the input of a producing linear)."""


@dataclass(frozen=True)
class Machine:
    """A device as reached in practice, and the number of tokens to plan for.

    Rates per second: `matrix` flops of large products, `vector` flops elsewhere,
    `bandwidth` bytes; `launch` seconds per operation; `element` bytes of one scalar.
    """

    matrix: float = 600e12
    vector: float = 40e12
    bandwidth: float = 2.8e12
    launch: float = 2e-6
    element: int = 2
    batch: int = 8
    tokens: int = 1024

    def text(self) -> str:
        """`matrix=6e+14 ... tokens=1024`: every number by name."""
        return " ".join(
            f"{f.name}={_shortest(getattr(self, f.name))}" for f in fields(self)
        )

    def changed(self, text: str) -> Machine:
        """The machine with other numbers, written as `text` writes them.

        Raises:
            ValueError: for an unknown name, or what is no number above zero.
        """
        changes = {}
        for part in text.split():
            name, _, number = part.partition("=")
            try:
                changes[name] = type(getattr(self, name))(number)
                known = name in {f.name for f in fields(self)} and changes[name] > 0
            except (AttributeError, TypeError, ValueError):
                known = False
            if not known:
                raise ValueError(f"no number of a machine: {part}")
        return replace(self, **changes)


def _shortest(number: float) -> str:
    text = f"{number:g}"
    return text if float(text) == number else repr(number)


@dataclass
class Measure:
    """Sizes and properties of nodes, remembered.

    `training`: a frozen weight is never copied, scaled or not, and, if `charged`, a
    product that is larger than its factors is charged for its gradient.
    """

    machine: Machine
    training: bool = True
    charged: bool = True
    _frozen: dict[Node, bool] = field(default_factory=dict)
    _weight: dict[Node, int] = field(default_factory=dict)

    def number(self, axis: Size) -> int:
        """The number of an axis; of the token axes, the machine's."""
        if axis.number is not None:
            return axis.number
        tokens = {B: self.machine.batch, T: self.machine.tokens}
        return tokens.get(axis, UNKNOWN)

    def elements(self, axes: Axes) -> int:
        """The number of elements of a tensor."""
        return math.prod(map(self.number, axes))

    def frozen(self, node: Node) -> bool:
        """Whether a node is made of base weights and buffers alone."""
        return _fold(self._frozen, node, _is_frozen)

    def weight(self, node: Node) -> int:
        """Elements of the base matrix that a node is a copy of, more or less, or 0.

        A copy is any sum of products that holds a base matrix and is not much smaller.
        """
        return _fold(self._weight, node, self._weight_of)

    def traffic(self, elements: int, flops: int = 0) -> float:
        """Seconds to move elements and compute on them, in one operation."""
        m = self.machine
        moved = m.element * elements / m.bandwidth
        return max(moved, flops / m.vector) + m.launch

    def gradient(self, elements: int) -> float:
        """Seconds that the gradient of a parameter-space matrix costs.

        It is a product over all tokens, as is the gradient it passes on: both read
        about two activations of the matrix's sides.
        """
        if not self.charged:
            return 0.0
        m = self.machine
        rows = m.batch * m.tokens
        flops = 2 * rows * elements / m.matrix
        moved = m.element * rows * 2 * math.sqrt(elements) / m.bandwidth
        return 2 * (max(flops, moved) + m.launch)

    def _weight_of(self, node: Node, inner: list[int]) -> int:
        if isinstance(node, Leaf):
            matrix = node.kind == "weight" and len(node.axes) > 1
            return self.elements(node.axes) if matrix else 0
        if not isinstance(node, (Add, Ein, View)) or has_tokens(node):
            return 0
        largest = max(inner, default=0)
        return largest if 2 * self.elements(node.axes) >= largest else 0


def _fold(known: dict[Node, V], node: Node, rule: Callable[[Node, list[V]], V]) -> V:
    """`rule` of a node and its operands' results, each worked out once."""
    stack = [node]
    while stack:
        last = stack[-1]
        missing = [operand for operand in last.operands if operand not in known]
        if missing:
            stack.extend(missing)
            continue
        stack.pop()
        if last not in known:
            known[last] = rule(last, [known[operand] for operand in last.operands])
    return known[node]


def _is_frozen(node: Node, inner: list[bool]) -> bool:
    if isinstance(node, Leaf):
        return node.kind in ("buffer", "weight")
    return all(inner)


def has_tokens(node: Node) -> bool:
    """Whether a value is an activation: it has a sample or token axis."""
    return B in node.axes or T in node.axes
