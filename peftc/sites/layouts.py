"""How a matrix is laid out between its parameter and its product.

In: the operand of a product.  Out: the parameter it is a layout of, and whether it
stands transposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.sites import ops

if TYPE_CHECKING:
    from torch import fx

LAYOUTS = ops.CASTS | frozenset(
    ("t", "transpose", "permute", "contiguous", "getattr", "swapaxes", "detach")
)
"""Through these a matrix is the same one, perhaps transposed."""


def is_turned(matrix: fx.Node, weight: fx.Node) -> bool:
    """Whether an odd number of transpositions lies between."""
    odd = False
    node = matrix
    while node is not weight:
        operator = ops.name(node)
        is_attribute = operator == "getattr" and node.args[1] in ("T", "mT")
        odd ^= operator in ("t", "transpose", "permute", "swapaxes") or is_attribute
        node = ops.inputs(node)[0]
    return odd
