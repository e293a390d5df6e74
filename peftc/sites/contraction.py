"""Products written as `einsum` of two tensors.

In: a node.  Out: which axes of its operands and of its result are the same, as letters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from peftc.sites import ops


@dataclass(frozen=True)
class Contraction:
    """The axes of both operands and of the result."""

    left: str
    right: str
    out: str

    @property
    def is_matmul(self) -> bool:
        """Whether it does what `matmul` does: [..., i, j] by [..., j, k].

        >>> Contraction("bnij", "bnjk", "bnik").is_matmul
        True
        >>> Contraction("bind", "bjnd", "bnij").is_matmul
        False
        """
        batch, row, column = self.out[:-2], self.out[-2:-1], self.out[-1:]
        inner = self.left[-1:]
        is_left = self.left == batch + row + inner
        return is_left and self.right == batch + inner + column and "." not in self.out


def contraction(node: fx.Node) -> Contraction | None:
    """The axes of an `einsum` of two tensors; None for anything else."""
    if ops.name(node) != "einsum" or len(factors(node)) != 2:
        return None
    text = str(node.args[0]).replace(" ", "")
    operands, arrow, out = text.partition("->")
    left, comma, right = operands.partition(",")
    return Contraction(left, right, out) if arrow and comma else None


def factors(node: fx.Node) -> tuple[fx.Node, ...]:
    """The tensors that an `einsum` multiplies."""
    given = node.args[1:]
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = tuple(given[0])
    return tuple(n for n in given if isinstance(n, fx.Node))
