"""What kind of work each value is.

In: formulas and their spaces.  Out: a kind for each:

wide     tokens by features, computed element by element or from a narrow value:
         recomputed in registers wherever it is read
narrow   tokens, or tokens by a small axis, without a sum over features
down     narrow, summed over features
column   summed over tokens, with one wide axis at most
constant one number
host     all else: products with the weight, parameters, functions of whole tensors,
         values with more axes; torch computes them
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.codegen.kernels.formulas import TOKENS

if TYPE_CHECKING:
    from peftc.codegen.kernels.formulas import Formula
    from peftc.codegen.kernels.spaces import Spaces

Kind: TypeAlias = Literal["wide", "narrow", "down", "column", "constant", "host"]


def kind_of(formula: Formula, spaces: Spaces) -> Kind:
    """The kind of a formula's value."""
    if formula.step.fn == "full":
        return "constant"
    rows = (*formula.rows, formula.row)
    if not formula.rows or not any(TOKENS in row for row in rows):
        return "host"
    wide = {x for x, s in spaces.letters(formula).items() if spaces.is_wide(s)}
    if not all(_is_tile(row, wide) for row in rows):
        return "host"
    if formula.step.op not in ("ein", "linear"):
        return _pointwise(formula, wide)
    return _product(formula, wide)


def _is_tile(row: str, wide: set[str]) -> bool:
    """Whether a block of a value has two axes at most, one of them wide at most."""
    few = len(row) < 3 and len(set(row)) == len(row)
    return few and len(wide & set(row)) < 2


def _pointwise(formula: Formula, wide: set[str]) -> Kind:
    return "wide" if wide & set(formula.row) else "narrow"


def _product(formula: Formula, wide: set[str]) -> Kind:
    summed = formula.summed
    if len(summed) > 1:
        return "host"
    if not summed:
        return _pointwise(formula, wide)
    if not all(summed in row for row in formula.rows):
        return "host"
    if not _is_block_product(formula):
        return "host"
    if summed == TOKENS:
        return "column"
    return "down" if summed in wide else _pointwise(formula, wide)


def _is_block_product(formula: Formula) -> bool:
    """Whether two blocks are multiplied as matrices, or all are on the same block."""
    apart = [row for row in formula.rows if len(row) == 2]
    if len(formula.row) == 2:
        return len(apart) == len(formula.rows) == 2 and apart[0] != apart[1]
    return len(set(apart)) < 2
