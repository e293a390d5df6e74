"""How one ordered product reads as a step: its arguments, labels and spec.

In: an Ein and the values of its operands.  Out: rows of labels, token axes leading, and
the text of the spec.  Labels are those of the Ein; of its literals only the labels
matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from peftc.expr.ir import Axes, Ein, Labels, Literal, Node
from peftc.expr.places import TOKEN_AXES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peftc.expr.sizes import Size

LETTERS = "ijklmnopqrsacdefghuvwxyz"
"""Feature labels of specs; b and t are the token axes."""


@dataclass(frozen=True)
class Value:
    """A value of a program: the token axes it has (of `bt`), and its other sizes."""

    name: str
    tokens: str
    shape: tuple[int, ...]


def token_axes(axes: Axes) -> str:
    """`bt`, `b`, `t` or nothing."""
    return "".join(n for n, axis in zip("bt", TOKEN_AXES, strict=True) if axis in axes)


def feature_sizes(axes: Axes) -> tuple[int, ...]:
    """The numbers of the axes that are no token axes."""
    return tuple(axis.value({}) for axis in axes if axis not in TOKEN_AXES)


def separates(node: Node) -> bool:
    """Whether a node treats samples and tokens differently."""
    if not isinstance(node, Ein):
        return _is_uneven(node.axes)
    rows = [
        (row, operand.axes)
        for row, operand in zip(node.labels, node.operands, strict=True)
    ]
    pairs = {
        tuple(row[axes.index(axis)] for axis in TOKEN_AXES)
        for row, axes in rows
        if set(TOKEN_AXES) <= set(axes)
    }
    uneven = any(_is_uneven(axes) for axes in (node.axes, *(axes for _, axes in rows)))
    summed = any(not set(pair) <= set(node.out) for pair in pairs)
    return uneven or summed or len(pairs) > 1


def _is_uneven(axes: Axes) -> bool:
    """One token axis without the other, or not in order side by side."""
    places = [axes.index(axis) for axis in TOKEN_AXES if axis in axes]
    return bool(places) and (len(places) < 2 or places[1] != places[0] + 1)


@dataclass(frozen=True)
class Labelled:
    """The labels of an Ein by what they stand for."""

    node: Ein
    size: dict[int, Size]

    @staticmethod
    def of(node: Ein) -> Labelled:
        """Read the labels off the operands."""
        size = {
            label: axis
            for operand, row in zip(node.operands, node.labels, strict=True)
            for axis, label in zip(operand.axes, row, strict=True)
        }
        return Labelled(node, size)

    def tokens(self, row: Iterable[int]) -> Labels:
        """The token labels of a row, sample axis first."""
        found = [n for n in row if self.size[n] in TOKEN_AXES]
        return tuple(sorted(found, key=lambda n: TOKEN_AXES.index(self.size[n])))

    def features(self, row: Iterable[int]) -> Labels:
        """The other labels, in order."""
        return tuple(n for n in row if self.size[n] not in TOKEN_AXES)

    def token_name(self, label: int) -> str:
        """`b` or `t`."""
        return "bt"[TOKEN_AXES.index(self.size[label])]

    def stored(self, row: Labels, value: Value) -> Labels:
        """The row of a value: the token axes it has, then the features."""
        tokens = (n for n in self.tokens(row) if self.token_name(n) in value.tokens)
        return (*tokens, *self.features(row))

    def numbers(self, labels: Iterable[int]) -> tuple[int, ...]:
        """The sizes of feature labels."""
        return tuple(self.size[label].value({}) for label in labels)

    def missing(self, rows: Sequence[Labels]) -> Labels:
        """Labels that only literals carry."""
        carried = {label for row in rows for label in row}
        literals = (
            row
            for operand, row in zip(self.node.operands, self.node.labels, strict=True)
            if isinstance(operand, Literal)
        )
        return tuple(n for n in dict.fromkeys(sum(literals, ())) if n not in carried)

    def result(self, rows: Sequence[Labels]) -> Labels:
        """The row of the result: the token axes any argument has, then the features."""
        carried = {label for row in rows for label in row}
        tokens = (n for n in self.tokens(self.node.out) if n in carried)
        return (*tokens, *self.features(self.node.out))

    def spec(self, rows: Sequence[Labels], out: Labels, separate: bool) -> str:
        """`*i,ji->*j`, or with b and t spelled out."""
        letter: dict[int, str] = {}
        for label in (n for row in (*rows, out) for n in row):
            if label in letter:
                continue
            if self.size[label] in TOKEN_AXES:
                letter[label] = self.token_name(label) if separate else "*"
            else:
                used = sum(text in LETTERS for text in letter.values())
                letter[label] = LETTERS[used]
        assert not separate or len(set(letter.values())) == len(letter), (
            "two token axes"
        )
        texts = ["".join(letter[label] for label in row) for row in (*rows, out)]
        *operands, result = (text.replace("**", "*") for text in texts)
        return ",".join(operands) + "->" + result

    def is_linear(self, rows: Sequence[Labels], out: Labels) -> bool:
        """Whether it is v[*, k] M[n, k] -> [*, n]."""
        if len(rows) != 2 or self.tokens(rows[1]) or len(rows[1]) != 2:
            return False
        (n, k), tokens = rows[1], self.tokens(rows[0])
        return (
            bool(tokens) and n != k and rows[0] == (*tokens, k) and out == (*tokens, n)
        )
