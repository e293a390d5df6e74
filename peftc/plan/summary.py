"""A plan for people: what is rewritten where, and what it costs.

In: a `Plan`.  Out: rows of a table, in which equal sites of several layers are one, and
lines of totals.
"""

from __future__ import annotations

from itertools import groupby
from math import prod
from typing import TYPE_CHECKING

from peftc.plan.types import stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from peftc.plan.types import Application, Memory, Plan, Rewrite, Storage
    from peftc.view import Site

COLUMNS = ("site", "layers", "shape", "methods", "tensors", "trainable", "merge")


def rows(plan: Plan) -> Iterator[tuple[str, ...]]:
    """The cells of each row, one for each of COLUMNS."""
    for group, trained in _trained(_groups(plan.rewrites)):
        yield _row(group, trained)


def _groups(rewrites: Sequence[Rewrite]) -> Iterable[list[Rewrite]]:
    """Rewrites alike in everything but the layer."""
    groups: dict[object, list[Rewrite]] = {}
    for rewrite in rewrites:
        role, _, *rest = _row([rewrite])
        groups.setdefault((role, *rest), []).append(rewrite)
    return groups.values()


def _trained(groups: Iterable[list[Rewrite]]) -> Iterator[tuple[list[Rewrite], int]]:
    """Each group with its trained scalars; what is shared counts where it comes first,
    so that the numbers add up to the plan's."""
    seen: set[Storage] = set()
    for group in groups:
        unique = {r.storage(t): t.count for r, t in stored(group) if t.kind == "param"}
        yield group, sum(n for key, n in unique.items() if key not in seen)
        seen |= unique.keys()


def _row(group: list[Rewrite], trained: int = 0) -> tuple[str, ...]:
    first = group[0]
    site = first.site
    reason = f": {first.merge.reason}" if first.merge.reason else ""
    return (
        _role(first),
        layers([number for r in group for number in _numbers(r.site)]),
        _shape(site),
        " + ".join(_call(a) for a in first.applications),
        _tensors(first),
        f"{trained:,}",
        first.merge.kind + reason,
    )


def _numbers(site: Site) -> Iterator[int]:
    """The layer of a site; of a side, those that a network reads."""
    if site.layer is not None:
        yield site.layer
    yield from (int(path.rpartition(".")[2]) for path in site.taps)


def _tensors(rewrite: Rewrite) -> str:
    """Each with its shape; a network has too many."""
    if rewrite.site.kind == "side":
        return f"{len(rewrite.tensors)} tensors"
    shapes = ((t.name, ",".join(map(str, t.shape))) for t in rewrite.tensors)
    return ", ".join(f"{name}[{shape}]" for name, shape in shapes)


def _shape(site: Site) -> str:
    """`64 x 32` for out x in; of an attention its heads and their widths together."""
    if site.kind == "attention":
        heads, groups, key, value = map(
            site.size, ("heads", "kv_heads", "key", "value")
        )
        return f"{heads}/{groups} heads, {key} + {value}"
    return " x ".join(str(n) for _, n in sorted(site.sizes, reverse=True))


def _role(rewrite: Rewrite) -> str:
    site = rewrite.site
    parts = (site.stack, "cross" if site.cross else "", site.role or site.owner)
    rows = (
        f" ({len(site.rows)} row range{'s'[: len(site.rows) > 1]})" if site.rows else ""
    )
    return ".".join(p for p in parts if p) + rows


def _call(application: Application) -> str:
    knobs = ", ".join(f"{n}={_plain(v)}" for n, v in application.knobs)
    inner = ", ".join(_call(part) for part in application.wraps)
    return f"{application.instance}({', '.join(p for p in (inner, knobs) if p)})"


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def layers(numbers: Sequence[int]) -> str:
    """`0..5`, `0, 2..4`."""
    return ", ".join(_ranges(sorted(set(numbers))))


def _ranges(layers: Sequence[int]) -> Iterator[str]:
    runs = groupby(enumerate(layers), key=lambda pair: pair[1] - pair[0])
    for _, run in runs:
        numbers = [layer for _, layer in run]
        first, last = numbers[0], numbers[-1]
        yield str(first) if first == last else f"{first}..{last}"


def totals(plan: Plan) -> Iterator[str]:
    """What all of it takes, in a few lines."""
    base = plan.model.parameters
    share = 100 * plan.trainable / base if base else 0
    yield (
        f"{plan.model.architecture}: {base:,} parameters, {plan.trainable:,} trainable"
        f" ({share:.3f} %), {len(plan.rewrites)} sites, seed {plan.seed}"
    )
    yield from _stores(plan)
    if plan.memory:
        yield _memory(plan.memory)
    yield from (f"note: {note}" for note in plan.notes)


def _stores(plan: Plan) -> Iterator[str]:
    """For each form: how many weights it keeps, and what they take."""
    for form in dict.fromkeys(s.form for s in plan.stores):
        same = [s for s in plan.stores if s.form == form]
        dense, kept = sum(s.dense for s in same), sum(s.bytes for s in same)
        bits = 8 * kept / sum(prod(s.shape) for s in same)
        yield (
            f"stored: {len(same)} weights as {form}, {bits:.3f} bits each:"
            f" {_size(kept)} instead of {_size(dense)}"
        )


def _memory(memory: Memory) -> str:
    added = memory.parameters + memory.gradients + memory.optimizer
    of = "" if memory.whole else " of the added operations"
    most = f"; at most {_size(memory.peak)} at once" if memory.whole else ""
    return (
        f"memory: base {_size(memory.base)}, parameters with gradients and AdamW"
        f" {_size(added)}, activations{of} {_size(memory.activations)}"
        f" at batch {memory.batch} x {memory.tokens} tokens{most}"
    )


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
