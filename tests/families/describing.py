"""A ModelView as lines, and expectations written as such lines.

    layers.0.q      model.layers.0.self_attn.q_proj.weight    32 -> 32
    layers.0.attn   model.layers.0.self_attn.o_proj           32  output tap

In an expectation lines with `{i}` stand for one line per layer; those that follow each
other are repeated together.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.view import ModelView, Rows, Site


def described(view: ModelView) -> list[str]:
    """All that a view says of its sites, one line each, in its order."""
    lines = [f"{view.architecture} of {view.layers} layers"]
    lines += [
        " ".join(filter(None, words(site)))
        for site in view.sites
        if site.kind != "input"
    ]
    lines += [f"? {u.what}: {' '.join(u.roles)}".strip() for u in view.unresolved]
    return lines


def words(site: Site) -> Iterator[str]:
    stack = f"{site.stack}." if site.stack else ""
    layer = "" if site.layer is None else f"layers.{site.layer}."
    cross = "cross." if site.cross else ""
    yield f"{stack}{layer}{cross}{site.role or '-'}"
    yield site.weight if site.kind not in ("hidden", "attention") else site.owner
    yield sizes(site)
    if site.kind == "hidden":
        yield "output" if site.weight else ""
        yield "post-norm" if site.post_norm else ""
        yield "tap" if site.tap else ""
    elif site.kind == "attention":
        yield "causal" if site.causal else ""
        yield "tap" if site.tap else ""
    elif site.kind != "embedding":
        yield "" if site.in_block else "outside"
    if site.rows:
        yield "rows " + ranges(site.rows)
    yield f"experts {site.experts}" if site.experts else ""
    yield "bias" if site.bias else ""
    yield "transposed" if site.transposed else ""
    yield "fused" if site.fused else ""
    yield f"tied to {site.tied}" if site.tied else ""
    yield f"calls {site.calls}" if site.calls > 1 else ""


def sizes(site: Site) -> str:
    if site.kind == "linear":
        return f"{site.size('in')} -> {site.size('out')}"
    if site.kind == "embedding":
        return f"{site.size('in')} x {site.size('hidden')}"
    if site.kind == "attention":
        heads = f"{site.size('heads')}/{site.size('kv_heads')}"
        return f"heads {heads} key {site.size('key')} value {site.size('value')}"
    return str(site.size("hidden"))


def ranges(rows: Rows) -> str:
    """`0:8,16:24`; every second row is `0:96:2`."""
    numbers = [i for a, b in rows for i in range(a, b)]
    if len(rows) > 8 and numbers == list(range(numbers[0], numbers[-1] + 1, 2)):
        return f"{numbers[0]}:{numbers[-1] + 1}:2"
    return ",".join(f"{a}:{b}" for a, b in rows)


def expected(text: str, layers: int) -> list[str]:
    """The lines of an expectation, written out for each layer."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    found: list[str] = []
    for is_repeated, group in groupby(lines, key=lambda line: "{i}" in line):
        block = list(group)
        numbers = range(layers) if is_repeated else (0,)
        found += [line.replace("{i}", str(i)) for i in numbers for line in block]
    return found
