"""Tables of learned positions, where methods move the first token.

In: the rewrites of a plan's attentions, and the view.  Out: a rewrite for each table of
positions that is read further on.  Rotations and relative biases see differences of
positions only: they need none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.plan import PositionsDoNotFit, PositionsNotMoved
from peftc.plan.types import Merge, Rewrite

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from peftc.view import ModelView


MOVED = "tokens start at a later position"


def starts_of(rewrites: Iterable[Rewrite]) -> dict[str, int]:
    """Where tokens start in each stack whose self-attentions move them.

    A token has one position in all layers: the furthest that any layer asks for.
    """
    starts: dict[str, int] = {}
    for rewrite in rewrites:
        if rewrite.start and not rewrite.site.cross:
            stack = rewrite.site.stack
            starts[stack] = max(rewrite.start, starts.get(stack, 0))
    return starts


def moved_tables(rewrites: Iterable[Rewrite], view: ModelView) -> Iterator[Rewrite]:
    """The tables of positions of each stack in which the first token is moved.

    Raises:
        PeftcError: if no position is left for a token.
    """
    starts = starts_of(rewrites)
    told = {site.stack for site in view.sites if site.role == "pos"}
    missing = [u for u in view.unresolved if "pos" in u.roles]
    if missing and not starts.keys() <= told:
        one = missing[0]
        raise fail(PositionsNotMoved(what=one.what, why=one.why))
    for site in view.sites:
        if site.role == "pos" and site.stack in starts:
            start, rows = starts[site.stack], site.size("in")
            if start >= rows:
                raise fail(PositionsDoNotFit(table=site.weight, rows=rows, start=start))
            yield Rewrite(site, (), Merge("none", MOVED), start=start)
