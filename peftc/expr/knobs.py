"""Knobs: the arguments of methods, their types, ranges, units and defaults.

In: a method and the values a user gave, each with its span and unit.  Out: the type of
every knob, and at a site the value of every knob.  Defaults may use other knobs and the
site's axis sizes.  Values are Python numbers; nothing is allocated however large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

from peftc.diagnostics.core import Diagnostic, Diagnostics, PeftcError, fail, suggestion
from peftc.diagnostics.definitions import DefaultCycle
from peftc.diagnostics.knobs import (
    KnobNotWhole,
    KnobRange,
    KnobType,
    KnobUnit,
    KnobWithoutEffect,
    MissingKnob,
    UnknownFunctionWord,
    UnknownKnob,
)
from peftc.expr import insertion, pairs
from peftc.expr.numbers import WORDS, Value, compute
from peftc.expr.spots import before
from peftc.expr.uses import body_names, flag_names, head_names, names_in, size_names
from peftc.syntax import ast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.syntax.source import Span

Knob: TypeAlias = int | float | str | bool


@dataclass(frozen=True)
class Given:
    """A value the user gave: `5%` is the value 5 with the unit `%`."""

    value: int | float | str | bool
    span: Span | None = None
    unit: Literal["", "%"] = ""
    formula: ast.Expr | None = None
    """What gives the value at a site; `value` then means nothing."""
    quoted: bool = False
    """A text in quotes, not a word."""


@dataclass(frozen=True)
class Type:
    """A type of knobs; `meaning` completes "`r` is ..."."""

    name: str
    meaning: str
    number: bool = True
    whole: bool = False
    least: float = -math.inf
    above: float = -math.inf
    below: float = math.inf
    percent: bool = False
    words: tuple[str, ...] = ()

    def admits(self, value: float | Fraction) -> bool:
        """Whether a number lies in the range."""
        return self.least <= value and self.above < value < self.below


KNOB_TYPES: Mapping[str, Type] = {
    t.name: t
    for t in (
        Type("size", "a whole number, 1 or more", whole=True, least=1),
        Type("derived", "a whole number, 1 or more", whole=True, least=1),
        Type("count", "a whole number, 0 or more", whole=True, least=0),
        Type(
            "fraction", "a fraction from 0 to below 1", least=0, below=1, percent=True
        ),
        Type("scale", "a number above 0", above=0),
        Type("number", "a number"),
        Type("flag", "`true` or `false`", number=False),
        Type("function", "a function of one number", number=False),
        Type("text", "a text in quotes", number=False),
        Type("method", "a method to wrap", number=False),
        Type("places", '`auto`, or places such as `0` or "0:3, -1:3"', number=False),
        Type("pairs", 'pairs of layers such as "-1:-1*0.1, 2:4*0.5"', number=False),
        Type("opening", "`uniform`, `vocab`, or a text in quotes", number=False),
    )
}


SPELT = ("places", "pairs", "opening")
"""Types of knobs whose values are written as they are kept."""


# --- types -------------------------------------------------------------------------


@lru_cache(maxsize=256)
def knob_types(method: ast.Method) -> Mapping[str, Type]:
    """The type of every knob, inferred from default and use where it is not written.

    An unknown type reads as `number`; `check_method` reports it.
    """
    sizes, flags, heads = size_names(method), flag_names(method), head_names(method)
    types = {}
    for knob in method.params:
        if knob.words:
            types[knob.name] = _choice(knob.words)
            continue
        name = knob.type or _inferred(knob, sizes, flags, heads)
        types[knob.name] = KNOB_TYPES.get(name, KNOB_TYPES["number"])
    return types


def _choice(words: tuple[str, ...]) -> Type:
    """One of some words."""
    *some, last = (f"`{word}`" for word in words)
    meaning = f"{', '.join(some)} or {last}"
    return Type("choice", meaning, number=False, words=words)


def _inferred(
    knob: ast.Parameter,
    sizes: frozenset[str],
    flags: frozenset[str],
    heads: frozenset[str],
) -> str:
    default = knob.default.id if isinstance(knob.default, ast.Name) else ""
    number = knob.default is not None and not default
    if default in ("true", "false") or (knob.name in flags and not number):
        return "flag"
    if knob.name in heads or default in WORDS:
        return "function"
    return "size" if knob.name in sizes else "number"


# --- values that users give --------------------------------------------------------


def check_knobs(
    method: ast.Method, given: Mapping[str, Given], span: Span | None = None
) -> None:
    """Check what can be checked without a site: names, types, ranges, missing knobs.

    Args:
        span: the application, for errors that have no place of their own.

    Raises:
        PeftcError: with all errors.
    """
    errors = Diagnostics()
    for found in (*_given_errors(method, given), *_missing(method, given, span)):
        errors.add(found)
    errors.check()


def _given_errors(
    method: ast.Method, given: Mapping[str, Given]
) -> Iterator[Diagnostic]:
    types = knob_types(method)
    known = [n for n, t in types.items() if t.name not in ("method", "derived")]
    for name, value in given.items():
        if name not in known:
            hint = suggestion(name, known) or _list_of(known)
            span = value.span and before(value.span, name)
            yield UnknownKnob(span=span, method=method.name, name=name, hint=hint)
            continue
        try:
            if not value.formula:
                convert(name, types[name], value)
        except PeftcError as error:
            yield from error.diagnostics
        if others := _overruled(method, name, given):
            yield KnobWithoutEffect(span=value.span, name=name, others=others)


def _list_of(knobs: list[str]) -> str:
    return f"its knobs are {', '.join(knobs)}" if knobs else "it has no knobs"


def _overruled(method: ast.Method, name: str, given: Mapping[str, Given]) -> str:
    """The given knobs whose defaults are all that `name` is for, or nothing."""
    if name in body_names(method):
        return ""
    users = [p.name for p in method.params if p.default and name in names_in(p.default)]
    idle = users and all(u in given or _overruled(method, u, given) for u in users)
    return ", ".join(f"`{u}`" for u in users) if idle else ""


def _missing(
    method: ast.Method, given: Mapping[str, Given], span: Span | None
) -> Iterator[Diagnostic]:
    types = knob_types(method)
    for knob in method.params:
        kind = types[knob.name]
        if knob.default is None and knob.name not in given and kind.name != "method":
            yield MissingKnob(
                span=span, method=method.name, name=knob.name, meaning=kind.meaning
            )


def convert(name: str, kind: Type, given: Given) -> Knob:
    """The value of a knob from what was given for it.

    Raises:
        PeftcError: if it is of another type, out of range, or has a wrong unit.
    """
    if given.unit and not kind.percent:
        text = {"meaning": kind.meaning, "value": str(given.value)}
        raise fail(KnobUnit(span=given.span, name=name, **text))
    if not kind.number:
        return _word(name, kind, given)
    value = given.value
    if isinstance(value, (bool, str)):
        raise fail(_wrong_type(name, kind, given))
    if isinstance(value, float) and not math.isfinite(value):
        raise fail(_out_of_range(name, kind, given))
    exact = Fraction(str(value)) / 100 if given.unit else Fraction(value)
    if kind.whole and exact.denominator != 1:
        raise fail(_wrong_type(name, kind, given))
    if not kind.admits(exact):
        raise fail(_out_of_range(name, kind, given))
    try:
        return int(exact) if kind.whole else float(exact)
    except OverflowError:
        raise fail(_out_of_range(name, kind, given)) from None


def _word(name: str, kind: Type, given: Given) -> Knob:
    if kind.name in SPELT:
        return _spelt(name, kind, given)
    if kind.name == "flag" and isinstance(given.value, bool):
        return given.value
    if given.value in kind.words:
        return given.value
    if kind.name == "text" and isinstance(given.value, str):
        return given.value
    if kind.name == "function" and isinstance(given.value, str):
        if given.value not in WORDS:
            hint = suggestion(given.value, WORDS)
            word = {"word": given.value, "hint": hint}
            raise fail(UnknownFunctionWord(span=given.span, **word))
        return given.value
    raise fail(_wrong_type(name, kind, given))


def _spelt(name: str, kind: Type, given: Given) -> str:
    """A value that is text: places and pairs in their canonical form; a text in its
    quotes."""
    value = given.value
    if kind.name == "places" and isinstance(value, (int, str)):
        found = None if isinstance(value, bool) else insertion.canonical(str(value))
        if found is not None:
            return found
    elif kind.name == "pairs" and isinstance(value, str):
        found = pairs.canonical(value)
        if found is not None:
            return found
    elif kind.name == "opening" and isinstance(value, str):
        if given.quoted and not set(value) & {'"', "\n"}:
            return f'"{value}"'
        if value in ("uniform", "vocab"):
            return value
    raise fail(_wrong_type(name, kind, given))


def _wrong_type(name: str, kind: Type, given: Given) -> KnobType:
    return KnobType(
        span=given.span, name=name, meaning=kind.meaning, value=_show(given)
    )


def _out_of_range(name: str, kind: Type, given: Given) -> KnobRange:
    value = given.value
    percent = kind.percent and isinstance(value, (int, float)) and 1 <= value < 100
    hint = f"did you mean `{value}%`?" if percent and not given.unit else ""
    text = {"meaning": kind.meaning, "value": _show(given), "hint": hint}
    return KnobRange(span=given.span, name=name, **text)


def _show(given: Given) -> str:
    if isinstance(given.value, bool):
        return "`true`" if given.value else "`false`"
    if isinstance(given.value, str):
        return f"`{given.value}`"
    text = str(given.value) if abs(given.value) < 1e300 else "too large a number"
    return f"{text}{given.unit}"


# --- values at a site --------------------------------------------------------------


def bind_knobs(
    method: ast.Method,
    given: Mapping[str, Given],
    sizes: Mapping[str, int],
    span: Span | None = None,
    site: str = "",
) -> Mapping[str, Knob]:
    """The value of every knob at a site, in the order of the definition.

    Args:
        sizes: numbers of the site's axes; defaults may use them.
        span: the application, for errors that have no place of their own.
        site: the site for people, if the message should name it.

    Raises:
        PeftcError: with all errors of what was given, or the first of a default.
    """
    check_knobs(method, given, span)
    binding = _Binding(method, given, sizes, span, site)
    found: dict[str, Knob] = {}
    for name in default_order(method):
        found[name] = binding.value(name, {**sizes, **found})
    return {n: found[n] for n, t in knob_types(method).items() if t.name != "method"}


def written(default: ast.Expr) -> Given:
    """A default that is a word, a text or a place, as if it were given."""
    if isinstance(default, ast.String):
        return Given(default.value, default.span, quoted=True)
    return Given(default.span.text, default.span)


def default_order(method: ast.Method) -> tuple[str, ...]:
    """The knobs that are values, each after those that its default uses.

    Raises:
        PeftcError: if defaults go round in a circle.
    """
    knobs = {p.name: p for p in method.params if p.type != "method"}
    order: dict[str, None] = {}
    for name in knobs:
        _visit(name, (), knobs, order)
    return tuple(order)


def _visit(
    name: str,
    chain: tuple[str, ...],
    knobs: Mapping[str, ast.Parameter],
    order: dict[str, None],
) -> None:
    if name in order:
        return
    knob = knobs[name]
    if name in chain:
        circle = (*chain[chain.index(name) :], name)
        text = " depends on ".join(f"`{n}`" for n in circle)
        raise fail(DefaultCycle(span=knob.span, chain=text))
    used = names_in(knob.default) if knob.default and not knob.words else ()
    for other in knobs:
        if other in used:
            _visit(other, (*chain, name), knobs, order)
    order[name] = None


@dataclass(frozen=True)
class _Binding:
    """One method at one site."""

    method: ast.Method
    given: Mapping[str, Given]
    sizes: Mapping[str, int]
    span: Span | None
    site: str

    def value(self, name: str, known: Mapping[str, Value]) -> Knob:
        """The value of a knob, from what was given or else its default."""
        kind = knob_types(self.method)[name]
        if name in self.given and not self.given[name].formula:
            return convert(name, kind, self.given[name])
        if name in self.given:
            return self.worked_out(name, kind, self.given[name], known)
        default = next(p.default for p in self.method.params if p.name == name)
        assert default is not None
        if kind.words or kind.name in SPELT:
            return convert(name, kind, written(default))
        value = compute(default, known)
        assert value is not None
        if isinstance(value, Fraction) and kind.whole and value.denominator != 1:
            raise fail(self.not_whole(name, default, value, known))
        plain = float(value) if isinstance(value, Fraction) else value
        return convert(name, kind, Given(plain, self.blamed(default)))

    def worked_out(
        self, name: str, kind: Type, given: Given, known: Mapping[str, Value]
    ) -> Knob:
        """The value of a knob whose formula has one here."""
        assert given.formula is not None
        if kind.name in SPELT:  # `vocab` is a word here, and an axis elsewhere
            return convert(name, kind, written(given.formula))
        value = compute(given.formula, known)
        assert value is not None
        if isinstance(value, Fraction) and kind.whole and value.denominator != 1:
            raise fail(self.not_whole(name, given.formula, value, known))
        plain = float(value) if isinstance(value, Fraction) else value
        if isinstance(plain, float) and kind.whole and plain.is_integer():
            plain = int(plain)
        return convert(name, kind, Given(plain, given.span))

    def not_whole(
        self, name: str, default: ast.Expr, value: Fraction, known: Mapping[str, Value]
    ) -> KnobNotWhole:
        """The diagnostic for a computed size that is no whole number."""
        used = sorted(names_in(default) & set(known))
        numbers = ", ".join(f"{n} = {known[n]}" for n in used)
        return KnobNotWhole(
            span=self.blamed(default),
            name=name,
            formula=default.span.text,
            value=str(value),
            site=f" at {self.site}" if self.site else "",
            hint=f"here {numbers}; give numbers that divide, or `{name}` itself",
        )

    def blamed(self, default: ast.Expr) -> Span | None:
        """What the user wrote that a default depends on, else the application."""
        spans = (g.span for n, g in self.given.items() if n in names_in(default))
        return next((span for span in spans if span), self.span)
