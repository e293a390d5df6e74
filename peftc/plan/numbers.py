"""The numbers that knobs may be worked out from at a site.

In: a view, and which sites each application of a spec is at.  Out: `Numbers`: at a site
its axes, `sites`, and the numbers of the model; and there the values of formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

from peftc.expr.formulas import settled
from peftc.resolve.groups import stacks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from peftc.expr.knobs import Given
    from peftc.resolve.spec import Applied
    from peftc.syntax.source import Span
    from peftc.view import ModelView, Site


@dataclass(frozen=True)
class Numbers:
    """Of a model and a spec; `at` are the sites of each application in the text."""

    view: ModelView
    at: Mapping[Span, tuple[Site, ...]]

    @staticmethod
    def of(applied: Iterable[Applied], view: ModelView) -> Numbers:
        """The numbers for what is applied, wrapped methods too."""
        found: dict[Span, dict[str, Site]] = {}
        for one in applied:
            found.setdefault(one.call, {})[one.site.key] = one.site
        return Numbers(view, {s: tuple(sites.values()) for s, sites in found.items()})

    def sizes(self, site: Site, call: Span) -> dict[str, int]:
        """Every number by its name."""
        count = sum(other.experts or 1 for other in self.at[call])
        return {
            **dict(site.sizes),
            "sites": count,
            "layers": sum(stacks(self.view).values()),
            "weights": sum(prod(p.shape) for p in self.view.parameters),
            "outputs": sum(map(_outputs, filter(_counts, self._beside(site)))),
        }

    def _beside(self, site: Site) -> list[Site]:
        """The sites of the same layer."""
        return [s for s in self.view.sites if _layer(s) == _layer(site)]

    def given(
        self, knobs: Mapping[str, Given], site: Site, call: Span
    ) -> dict[str, Given]:
        """Knobs with the sums over a layer worked out."""
        layer = [
            {**self.sizes(other, call)}
            for other in self.at[call]
            if _layer(other) == _layer(site)
        ]
        return {
            name: replace(one, formula=settled(one.formula, layer))
            if one.formula
            else one
            for name, one in knobs.items()
        }


def _layer(site: Site) -> tuple[str, int | None]:
    return site.stack, site.layer


def _counts(site: Site) -> bool:
    """Whether it is one of the linears of a block."""
    inside = site.kind == "linear" and site.in_block and not site.fused
    return inside and site.role != "router"


def _outputs(site: Site) -> int:
    return site.size("out") * (site.experts or 1)
