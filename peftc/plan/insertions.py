"""Where the rows of an input's methods stand among the tokens.

In: a rewrite of an input site and the definitions of its methods.  Out: the places of
all its rows, in the order in which the rows are stacked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.plan import PlacesDoNotFit, TooManyRows
from peftc.expr.insertion import places
from peftc.plan.equations import composed, environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftc.expr.insertion import Places
    from peftc.plan.types import Rewrite
    from peftc.syntax.ast import Method
    from peftc.syntax.source import Span
    from peftc.view import ModelView, Site


def insertions(rewrite: Rewrite, methods: Mapping[str, Method]) -> Places:
    """Before which token rows stand, and how many of them.

    Raises:
        ValueError: if a method has places for another number of rows than it gives.
    """
    whole, sizes = composed(rewrite, methods), environment(rewrite)
    auto = first_place(rewrite.site)
    return tuple(
        place
        for output, text in zip(whole.outputs.values(), whole.places, strict=True)
        for place in places(text, output.axes[0].value(sizes), auto)
    )


def first_place(site: Site) -> int:
    """Before which token rows stand that may stand anywhere.

    An encoder that stands alone gives out the state of its first token for the whole:
    that has to stay the first.
    """
    return 0 if site.causal or site.stack == "enc" else 1


def check_insertions(
    rewrite: Rewrite, methods: Mapping[str, Method], view: ModelView, span: Span
) -> None:
    """Refuse places that do not hold the rows, and rows that leave tokens no place.

    Raises:
        PeftcError: PEFT340, PEFT342.
    """
    try:
        found = insertions(rewrite, methods)
    except ValueError as problem:
        raise fail(PlacesDoNotFit(span=span, problem=str(problem))) from None
    count = sum(rows for _, rows in found)
    for site in view.sites:
        if site.role == "pos" and site.stack == rewrite.site.stack:
            size = site.size("in")
            if count >= size:
                table = site.weight
                raise fail(TooManyRows(span=span, rows=count, table=table, size=size))
