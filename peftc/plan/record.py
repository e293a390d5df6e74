"""A plan as plain data, for programs.

In: a `Plan`.  Out: a dictionary that `json.dumps` takes, with a version; fields are
added in later versions, never renamed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peftc.codegen.text import program_text
from peftc.plan.print import plan_hash
from peftc.syntax.print import print_method

if TYPE_CHECKING:
    from peftc.plan.types import Plan, Rewrite, StoredWeight

VERSION = 1


def plan_record(plan: Plan) -> dict[str, Any]:
    """Everything in the plan, and its totals."""
    return {
        "version": VERSION,
        "hash": plan_hash(plan),
        "model": asdict(plan.model),
        "seed": plan.seed,
        "dtype": plan.dtype,
        "trainable": plan.trainable,
        "memory": asdict(plan.memory) if plan.memory else None,
        "notes": list(plan.notes),
        "methods": {m.name: print_method(m) for m in plan.methods},
        "sites": [_site(rewrite) for rewrite in plan.rewrites],
        "stores": [_store(stored) for stored in plan.stores],
    }


def _store(stored: StoredWeight) -> dict[str, Any]:
    parts = [asdict(part) for part in stored.parts]
    return {**asdict(stored), "bytes": stored.bytes, "parts": parts}


def _site(rewrite: Rewrite) -> dict[str, Any]:
    site = asdict(rewrite.site)
    return {
        **site,
        "place": rewrite.site.place,
        "sizes": dict(rewrite.site.sizes),
        "applications": [asdict(a) for a in rewrite.applications],
        "start": rewrite.start,
        "merge": asdict(rewrite.merge),
        "programs": {p.target: program_text(p) for p in rewrite.programs},
    }
