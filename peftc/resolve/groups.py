"""Groups of layers that depend on how many a model has: the scope `spindle`.

In: the scopes of a request and a `ModelView`.  Out: the scopes with the layers that
each group has in each stack: few at both ends and many in between (S4, Chen et al.
2023, arXiv 2301.01821).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.wrappers import TooFewLayers

if TYPE_CHECKING:
    from peftc.resolve.selectors import Restriction
    from peftc.view import ModelView

GROUPS = 4


def spindle(layers: int) -> tuple[int, int, int, int]:
    """The sizes of the four groups, from input to output."""
    end = max(1, round(layers / 6))
    rest = layers - 2 * end
    return end, rest - rest // 2, rest // 2, end


def stacks(view: ModelView) -> dict[str, int]:
    """How many layers each stack has."""
    found: dict[str, int] = {}
    for site in view.sites:
        if site.layer is not None:
            found[site.stack] = max(found.get(site.stack, 0), site.layer + 1)
    return found


def with_layers(
    scopes: tuple[Restriction, ...], view: ModelView
) -> tuple[Restriction, ...]:
    """The scopes, groups with their layers.

    Raises:
        PeftcError: PEFT314 if a stack has fewer layers than there are groups.
    """
    return tuple(
        _grouped(scope, view) if scope.name == "spindle" else scope for scope in scopes
    )


def _grouped(scope: Restriction, view: ModelView) -> Restriction:
    found = []
    for stack, layers in stacks(view).items():
        if layers < GROUPS:
            raise fail(TooFewLayers(span=scope.span, layers=layers))
        sizes = spindle(layers)
        starts = [sum(sizes[:index]) for index in range(GROUPS)]
        for first, last in scope.groups:
            ends = starts[first - 1], starts[last - 1] + sizes[last - 1] - 1
            found.append((stack, *ends))
    return replace(scope, within=tuple(found))
