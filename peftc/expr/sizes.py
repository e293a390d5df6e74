"""Sizes of axes: Laurent polynomials with rational coefficients over names.

In: numbers, names (`out`, `r`) and arithmetic on them.  Out: `Size`, a canonical value:
two sizes are equal iff they are equal for all values of their names, so `a * (out/a)`
is `out`.  Whether `out/a` is whole is known only where the names have numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Monomial: TypeAlias = tuple[tuple[str, int], ...]
"""Names and their non-zero exponents, sorted by name."""

Coefficient: TypeAlias = int | Fraction
"""An int whenever it is whole, because fractions are slow."""


class NotWhole(ValueError):
    """A size that is not a positive whole number where its names have numbers.

    `size` is its text and `value` what it came to.
    """

    def __init__(self, size: str, value: Fraction) -> None:
        self.size = size
        self.value = value
        super().__init__(f"{size} is not a positive whole number: {value}")


@dataclass(frozen=True)
class Size:
    """A sum of monomials with coefficients: sorted, none of them zero."""

    terms: tuple[tuple[Monomial, Coefficient], ...]

    @staticmethod
    def of(value: int | str | Size) -> Size:
        """The size of a number or a name; a size stays itself."""
        return value if isinstance(value, Size) else _atom(value)

    def __add__(self, other: int | str | Size) -> Size:
        total = dict(self.terms)
        for monomial, coefficient in Size.of(other).terms:
            total[monomial] = total.get(monomial, 0) + coefficient
        return _collect(total)

    def __mul__(self, other: int | str | Size) -> Size:
        return _times(self, Size.of(other))

    def __truediv__(self, other: int | str | Size) -> Size:
        divisor = Size.of(other)
        if len(divisor.terms) != 1:
            raise ValueError(f"cannot divide a size by {divisor}, which is a sum")
        ((monomial, coefficient),) = divisor.terms
        inverse = tuple((name, -power) for name, power in monomial)
        return self * Size(((inverse, _whole(Fraction(1) / coefficient)),))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    @cached_property
    def number(self) -> int | None:
        """The value of a positive whole size without names, else None."""
        if len(self.terms) != 1 or self.terms[0][0]:
            return None
        value = self.terms[0][1]
        return value if isinstance(value, int) and value > 0 else None

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The names that occur."""
        return frozenset(name for monomial, _ in self.terms for name, _ in monomial)

    def value(self, env: Mapping[str, int]) -> int:
        """The number this size is where names have the values of `env`.

        Raises:
            NotWhole: if that is no whole number, or is below one.
            KeyError: if `env` lacks a name.
        """
        if self.number is not None:
            return self.number
        total = sum(
            (
                coefficient * _power(monomial, env)
                for monomial, coefficient in self.terms
            ),
            start=Fraction(0),
        )
        if total.denominator != 1 or total < 1:
            raise NotWhole(str(self), total)
        return int(total)

    @cached_property
    def _text(self) -> str:
        return " + ".join(_show_term(*term) for term in self.terms) or "0"

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Size({self._text})"


@lru_cache(maxsize=4096)
def _atom(value: int | str) -> Size:
    if isinstance(value, str):
        return Size(((((value, 1),), 1),))
    return Size((((), value),) if value else ())


@lru_cache(maxsize=4096)
def _times(left: Size, right: Size) -> Size:
    total: dict[Monomial, Coefficient] = {}
    for a, x in left.terms:
        for b, y in right.terms:
            monomial = _join(a, b)
            total[monomial] = total.get(monomial, 0) + x * y
    return _collect(total)


def _join(left: Monomial, right: Monomial) -> Monomial:
    powers = dict(left)
    for name, power in right:
        powers[name] = powers.get(name, 0) + power
    return tuple(sorted((name, power) for name, power in powers.items() if power))


def _whole(value: Coefficient) -> Coefficient:
    return int(value) if value.denominator == 1 else value


def _collect(terms: Mapping[Monomial, Coefficient]) -> Size:
    kept = ((monomial, _whole(value)) for monomial, value in terms.items() if value)
    return Size(tuple(sorted(kept)))


def _power(monomial: Monomial, env: Mapping[str, int]) -> Fraction:
    result = Fraction(1)
    for name, power in monomial:
        result *= Fraction(env[name]) ** power
    return result


def _show_term(monomial: Monomial, coefficient: Coefficient) -> str:
    over = [_show_power(name, power) for name, power in monomial if power > 0]
    under = [_show_power(name, -power) for name, power in monomial if power < 0]
    if coefficient.numerator != 1 or not over:
        over.insert(0, str(coefficient.numerator))
    if coefficient.denominator != 1:
        under.insert(0, str(coefficient.denominator))
    return "*".join(over) + "".join(f"/{part}" for part in under)


def _show_power(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"


def show(axes: Iterable[Size]) -> str:
    """`[out, r]`."""
    return "[" + ", ".join(map(str, axes)) + "]"


def product(axes: Iterable[Size]) -> Size:
    """The number of elements of a tensor with these axes."""
    total = Size.of(1)
    for axis in axes:
        total = total * axis
    return total
