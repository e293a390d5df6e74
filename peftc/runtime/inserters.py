"""Which rows stand among the tokens of an entry's forward.

In: a plan, the layout of an entry, and the model.  Out: its `Inserter`, or None if no
method puts rows among the tokens it reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftc.plan.equations import definitions
from peftc.plan.insertions import insertions
from peftc.runtime.insertion import Inserter, filler

if TYPE_CHECKING:
    from peftc.plan.types import Plan
    from peftc.runtime.bind import Layout


def inserter_of(plan: Plan, layout: Layout, model: Any) -> Inserter | None:
    """The inserter of one entry."""
    for rewrite in plan.rewrites:
        site = rewrite.site
        if site.key != layout.input:
            continue
        ask = getattr(model, "get_encoder", None)
        encodes = site.stack == "enc"
        part = (
            encodes and ask is not None and ask() is model.get_submodule(layout.within)
        )
        return Inserter(
            site.place,
            insertions(rewrite, definitions(plan)),
            site.causal,
            filler(getattr(model, "config", None), site.size("vocab")),
            encodes,
            part,
        )
    return None
