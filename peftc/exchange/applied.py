"""What an adapter does, site by site, with values.

In: an adapter.  Out: `Applied` for each method at each site: its definition, its knobs,
and its tensors by the names in the definition.  Shared tensors are with every site that
reads them, and tensors that are drawn are drawn again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from peftc.diagnostics.core import PeftcError, fail
from peftc.diagnostics.exchange import NotExpressible
from peftc.plan.equations import definitions
from peftc.runtime.adapters import plan_of
from peftc.runtime.fingerprint import Fingerprint
from peftc.runtime.initial import initial_value
from peftc.runtime.parameters import added
from peftc.syntax.ast import Rule
from peftc.syntax.source import Source, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    from peftc.plan.types import AddedTensor, Application, Knob, Plan, Rewrite
    from peftc.runtime.state import Adapter
    from peftc.syntax.ast import Method
    from peftc.view import Site

    Read: TypeAlias = Callable[[str], torch.Tensor]
    """Gives a parameter of the base by its path."""

_ORIGIN = re.compile(r"(.*):(\d+):(\d+)", re.DOTALL)
_SHAPE = re.compile(r"\w+\[([\d,]*)\]")


@dataclass(frozen=True, eq=False)
class Applied:
    """One method at one site, with the values of its tensors by their own names."""

    rewrite: Rewrite
    application: Application
    method: Method
    tensors: Mapping[str, torch.Tensor]
    spec: str
    known_as: str
    """The known method with this definition, whatever it is called here; "" if there
    is none."""

    @property
    def site(self) -> Site:
        """Where it is applied."""
        return self.rewrite.site

    @property
    def knobs(self) -> Mapping[str, Knob]:
        """Its knobs by name."""
        return dict(self.application.knobs)

    def number(self, knob: str) -> float:
        """The value of a knob that is a number."""
        return float(self.knobs[knob])

    @property
    def rule(self) -> str:
        """The first rule of its definition, as text."""
        body = self.method.clauses[self.application.clause].body
        rules = (one for one in body if isinstance(one, Rule))
        return next((" ".join(r.span.text.split()) for r in rules), self.method.name)

    @property
    def span(self) -> Span | None:
        """Where the spec asks for it; None where that is in another file."""
        found = _ORIGIN.fullmatch(self.application.origin)
        if not found:
            return None
        source = Source(found[1], self.spec)
        line, column = int(found[2]), int(found[3])
        word = re.match(r'[\w.]+|"[^"]*"', source.line(line)[column - 1 :])
        if not word:
            return None
        start = source.line_starts[line - 1] + column - 1
        return Span(source, start, start + word.end())

    def refuse(self, form: str, reason: str) -> PeftcError:
        """The error that a format does not have this method."""
        span, place = self.span, self.application.origin
        where = "" if span or not place else f" at {place}"
        what = f"`{self.rule}` of `{self.method.name}`{where}"
        return fail(NotExpressible(span=span, what=what, form=form, reason=reason))


@dataclass(frozen=True, eq=False)
class Given:
    """What is to be exported, and what is known of its base."""

    plan: Plan
    applied: tuple[Applied, ...]
    shapes: Mapping[str, tuple[int, ...]]
    """Of the base's parameters, by path."""
    read: Read | None = None
    """Gives the base's values, if the base is at hand."""
    base: str = ""
    """What the base is called, for those who load it by name."""

    def rows(self, site: Site) -> int:
        """The number of rows of a site's whole weight, in [out, in] orientation."""
        shape = self.shapes.get(site.weight)
        if shape is None:
            return site.size("out")
        return shape[-1] if site.transposed else shape[-2]


def given(
    adapter: Adapter,
    known: Mapping[str, Method],
    read: Read | None = None,
    base: str = "",
) -> Given:
    """An adapter as what is to be exported; `known` are the methods that formats have.

    Raises:
        PeftcError: PEFT622 if its plan cannot be read, PEFT730 for what no other format
            has.
    """
    plan = plan_of(adapter)
    found = tuple(_applied(adapter, plan, known))
    return Given(plan, found, _shapes(adapter.base), read, base)


def _applied(
    adapter: Adapter, plan: Plan, known: Mapping[str, Method]
) -> Iterator[Applied]:
    methods, value = definitions(plan), _values(adapter, plan)
    names = {name: _known_as(method, known) for name, method in methods.items()}
    for rewrite in plan.rewrites:
        for one in rewrite.applications:
            start = f"{one.instance}."
            tensors = {
                t.name.removeprefix(start): value(rewrite, t) for t in one.tensors
            }
            method, name = methods[one.method], names[one.method]
            found = Applied(rewrite, one, method, tensors, adapter.spec, name)
            if one.wraps:
                inner = ", ".join(f"`{part.method}`" for part in one.wraps)
                raise found.refuse("another tool", f"it is wrapped around {inner}")
            yield found


def _values(
    adapter: Adapter, plan: Plan
) -> Callable[[Rewrite, AddedTensor], torch.Tensor]:
    paths = {r.storage(t): path for r, t, path in added(plan)}
    dtype = next(
        (t.dtype for t in adapter.tensors.values() if t.is_floating_point()),
        torch.float32,
    )

    def value(rewrite: Rewrite, tensor: AddedTensor) -> torch.Tensor:
        if tensor.drawn:
            return initial_value(tensor, plan.seed, rewrite.site.key, dtype)
        return adapter.tensors[paths[rewrite.storage(tensor)]]

    return value


def _shapes(base: str) -> Mapping[str, tuple[int, ...]]:
    """The shapes that a fingerprint tells."""
    told = Fingerprint.parse(base).tensors
    found = {name: _SHAPE.match(text) for name, text in told.items()}
    return {
        name: tuple(int(n) for n in one[1].split(",") if n)
        for name, one in found.items()
        if one
    }


def _known_as(method: Method, known: Mapping[str, Method]) -> str:
    """The name of an equal definition, the same one if that is equal."""
    names = [name for name, one in known.items() if _same(one, method)]
    return method.name if method.name in names else next(iter(names), "")


def _same(known: Method, method: Method) -> bool:
    """Whether a definition is one of the library; an export adds clauses behind."""
    clauses = method.clauses[: len(known.clauses)]
    return known.params == method.params and known.clauses == clauses
