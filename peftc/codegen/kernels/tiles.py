"""Blocks of values in registers, as text.

In: axes of blocks: `t` tokens, `f` features, and small ones by their number of
elements.  Out: a `Tile`: an expression, its axes, and along which of them its padding
is zero.  What lies past the end of an axis is loaded as zero, but `exp(0)` is one: a
sum over an axis masks whatever is not known to be clean along it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.expr.functions import ELEMENTWISE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TOKEN, FEATURE = "t", "f"
LEAST = 16
"""The smallest side of a block that is multiplied as a matrix."""

MAPS: Mapping[str, str] = {
    "abs": "tl.abs({0})",
    "clamp01": "tl.minimum(tl.maximum({0}, 0.0), 1.0)",
    "cos": "tl.cos({0})",
    "elu": "tl.where({0} > 0, {0}, tl.exp(tl.minimum({0}, 0.0)) - 1.0)",
    "erf": "tl.erf({0})",
    "exp": "tl.exp({0})",
    "gelu": "0.5 * {0} * (1.0 + tl.erf({0} * 0.7071067811865476))",
    "gelu_tanh": "{0} * tl.sigmoid(1.5957691216057308 * "
    "({0} + 0.044715 * {0} * {0} * {0}))",
    "leaky_relu": "tl.where({0} > 0, {0}, 0.01 * {0})",
    "log": "tl.log({0})",
    "mish": "{0} * (2.0 * tl.sigmoid(2.0 * (tl.maximum({0}, 0.0) + "
    "tl.log(1.0 + tl.exp(-tl.abs({0}))))) - 1.0)",
    "quick_gelu": "{0} * tl.sigmoid(1.702 * {0})",
    "recip": "1.0 / {0}",
    "relu": "tl.maximum({0}, 0.0)",
    "rsqrt": "tl.rsqrt({0})",
    "sigmoid": "tl.sigmoid({0})",
    "sign": "({0} > 0).to(tl.float32) - ({0} < 0).to(tl.float32)",
    "silu": "{0} * tl.sigmoid({0})",
    "sin": "tl.sin({0})",
    "softplus": "tl.maximum({0}, 0.0) + tl.log(1.0 + tl.exp(-tl.abs({0})))",
    "sqrt": "tl.sqrt({0})",
    "step": "({0} > 0).to(tl.float32)",
    "tanh": "2.0 * tl.sigmoid(2.0 * {0}) - 1.0",
}
"""functions.ELEMENTWISE in Triton's language."""


def keeps_zero(fn: str) -> bool:
    """Whether a function of zero is zero."""
    try:
        return ELEMENTWISE[fn](0.0) == 0
    except (ValueError, ZeroDivisionError):
        return False


def padded(size: int) -> int:
    """The length of a block that holds a small axis whole."""
    return max(LEAST, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Axis:
    """An axis of a block: `t`, `f`, or a small one of some elements."""

    name: str
    size: int = 0
    """The number of elements, if it is small."""

    @property
    def length(self) -> str:
        """That of the block."""
        return {TOKEN: "BM", FEATURE: "BF"}.get(self.name, str(padded(self.size)))

    @property
    def places(self) -> str:
        """The variable with the places of its elements."""
        return f"r{self.name}"

    @property
    def mask(self) -> str:
        """The variable that tells which are no padding; none if all are."""
        whole = self.size and padded(self.size) == self.size
        return "" if whole else f"m{self.name}"


T, F = Axis(TOKEN), Axis(FEATURE)


def small(size: int) -> Axis:
    """An axis that is held whole."""
    return Axis(str(size), size)


@dataclass(frozen=True)
class Tile:
    """A block of a value: `raw` in the type that it is stored in, else in float32."""

    text: str
    axes: tuple[Axis, ...]
    clean: frozenset[Axis]
    raw: bool = False

    @property
    def number(self) -> str:
        """The block in float32."""
        return f"{self.text}.to(tl.float32)" if self.raw else self.text

    def is_clean(self, axis: Axis) -> bool:
        """Whether the padding of an axis is zero, or there is none."""
        return axis in self.clean or not axis.mask

    def zeroed(self, axis: Axis) -> Tile:
        """The same with zeros for the padding of an axis."""
        if self.is_clean(axis):
            return self
        mask = axis.mask + spread((axis,), self.axes)
        text = f"tl.where({mask}, {self.number}, 0.0)"
        return Tile(text, self.axes, self.clean | {axis})

    def among(self, axes: Sequence[Axis]) -> str:
        """The block in float32, spread so that it lines up with one of `axes`."""
        index = spread(self.axes, axes)
        whole = self.raw or index == "" or self.text.isidentifier()
        return f"{self.number if whole else f'({self.text})'}{index}"


def spread(own: Sequence[Axis], axes: Sequence[Axis]) -> str:
    """The index that lines up a block with one of more axes."""
    if not own or tuple(own) == tuple(axes):
        return ""
    return f"[{', '.join(':' if axis in own else 'None' for axis in axes)}]"


def at(place: int, count: int) -> str:
    """The index that makes one axis that of this place among so many."""
    if count == 1:
        return ""
    return f"[{', '.join(':' if i == place else 'None' for i in range(count))}]"


def bounds(axes: Sequence[Axis]) -> str:
    """Which elements of a block are no padding; nothing if all are."""
    masks = [a.mask + at(i, len(axes)) for i, a in enumerate(axes) if a.mask]
    return " & ".join(masks)


def clean_product(parts: Sequence[Tile]) -> frozenset[Axis]:
    """Along which axes a product is clean: nothing infinite meets a zero there."""
    every = {axis for part in parts for axis in part.axes}
    return frozenset(
        axis for axis in every if all(axis in p.clean for p in parts if axis in p.axes)
    )


def clean_sum(parts: Sequence[Tile]) -> frozenset[Axis]:
    """Along which axes a sum is clean."""
    every = {axis for part in parts for axis in part.axes}
    return frozenset(
        axis for axis in every if all(axis in part.clean for part in parts)
    )
