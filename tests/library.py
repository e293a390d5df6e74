"""Every clause of the standard library as an equation at a small site.

The methods are found, not listed.  Knobs have their defaults, or with `raised` those
that are zero something else, so that dropout drops; a wrapper wraps a method of
`tests/golden/programs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from peftc.diagnostics.core import PeftcError
from peftc.expr.elaborate import elaborate
from peftc.expr.knobs import Given, bind_knobs
from peftc.expr.scope import kind_of
from peftc.resolve.library import standard_library
from tests.equations import Stack, case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peftc.expr.equation import Equation
    from peftc.syntax.ast import Method
    from peftc.view import Kind

SIZES: Mapping[str, Mapping[str, int]] = {
    "linear": {"out": 24, "in": 16},
    "hidden": {"hidden": 128},
    "norm": {"hidden": 128},
    "attention": {"hidden": 128, "heads": 4, "kv_heads": 2, "key": 8, "value": 12},
    "input": {"hidden": 16, "vocab": 11},
}
INNER = {"linear": "lora", "hidden": "adapter", "attention": "rows"}
"""What a wrapper wraps, by kind of site."""
ASKED = {
    "size": Given(4),
    "count": Given(2),
    "fraction": Given(0.25),
    "text": Given("somewhere", quoted=True),
}
"""Values of knobs that have no default, by their type; `raised` ones, too."""


def clauses(*kinds: str) -> list[tuple[str, int]]:
    """Every method of the library with the number of each clause at such sites."""
    return [
        (name, number)
        for name, method in sorted(standard_library().methods.items())
        for number, clause in enumerate(method.clauses)
        if kind_of(clause.place) in kinds
    ]


def small_sites(name: str, number: int) -> Iterator[Stack]:
    """One clause at a site, for the values of knobs that it has a meaning for."""
    made = 0
    for raised in (False, True):
        try:
            stack = _at_small_site(name, number, raised)
        except PeftcError:
            continue
        made += 1
        yield stack
    assert made, f"ASKED lacks a value for a knob of {name}"


def _at_small_site(name: str, number: int, raised: bool) -> Stack:
    """One clause of a method at a site, its tensors named after the method."""
    method = standard_library().methods[name]
    clause = method.clauses[number]
    kind = cast("Kind", kind_of(clause.place))
    sizes = dict(SIZES[kind])
    knobs = bind_knobs(method, _given(method, raised), {**sizes, "sites": 1})
    wrappers = [p.name for p in method.params if p.type == "method"]
    inner: Mapping[str, list[Equation]] = {}
    env = {**sizes, **{f"{name}.{k}": v for k, v in knobs.items() if _is_size(v)}}
    if wrappers:
        wrapped = case(INNER[kind], prefix="inner.")
        inner = {wrapper: [wrapped.equation] for wrapper in wrappers}
        env = {**wrapped.env, **env}
    equation = elaborate(clause, knobs, sizes, f"{name}.", inner)
    return Stack((equation,), kind, cast("Mapping[str, int]", env))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _given(method: Method, raised: bool) -> dict[str, Given]:
    given = {}
    for param in method.params:
        if param.default is None and param.type in ASKED:
            given[param.name] = ASKED[param.type]
        zero = param.default is not None and param.default.span.text == "0"
        if raised and zero and param.type in ASKED:
            given[param.name] = ASKED[param.type]
    return given
