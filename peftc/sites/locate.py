"""The sites of one captured graph, by its dataflow alone.

In: a graph, the parameter path of each of its parameter placeholders, and the paths
that share a storage.  Out: `Survey`: the sites with their anchors in forward order, and
what the dataflow did not tell.  No name of an architecture, module or parameter is
read: a path is only where a site is found again.

Row numbers of fused weights cost a small execution, so `peftc.sites.rows` adds them.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from peftc.sites import ops
from peftc.sites.anchors import (
    AttentionAnchor,
    HiddenAnchor,
    InputAnchor,
    Located,
    NormAnchor,
)
from peftc.sites.flow import strip, undropped
from peftc.sites.given import given_tokens, scaled
from peftc.sites.positions import is_position
from peftc.sites.reading import read
from peftc.sites.roles import Place, Use, assign
from peftc.view import ROLES, Site, Unresolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import fx

    from peftc.sites.anchors import EmbeddingAnchor
    from peftc.sites.flow import Flow
    from peftc.sites.linears import Linear
    from peftc.sites.norms import Norm
    from peftc.sites.reading import Reading
    from peftc.sites.roles import Core, Edge, Roles
    from peftc.sites.streams import Stack, Stream

ROWED = frozenset(("q", "k", "v", "up", "gate", "experts.up", "experts.gate"))
"""Roles that can be rows of a fused weight."""


@dataclass(frozen=True)
class Found:
    """A site in a graph.  For a role that can be rows of a fused weight: per anchor a
    value in which only the channels of the role are left."""

    located: Located
    position: int
    values: tuple[fx.Node, ...] = ()


@dataclass(frozen=True)
class Survey:
    """All that the dataflow told of one graph, in forward order."""

    found: tuple[Found, ...]
    unresolved: tuple[Unresolved, ...]
    layers: int
    ends: frozenset[fx.Node] = frozenset()
    """Where values begin (`Reading.ends`)."""


@dataclass(frozen=True)
class Paths:
    """Parameter paths of placeholders; of shared parameters all paths."""

    names: Mapping[fx.Node, str]
    ties: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def all(self, node: fx.Node) -> tuple[str, ...]:
        """The paths of a parameter, in the model's order."""
        path = self.names[node]
        return self.ties.get(path, (path,))


def locate(
    graph: fx.Graph,
    names: Mapping[fx.Node, str],
    ties: Mapping[str, tuple[str, ...]] | None = None,
) -> tuple[Located, ...]:
    """The sites of a graph with their anchors, in forward order.

    Args:
        names: the parameter path of each parameter placeholder.
        ties: for each path of a shared parameter all its paths, in the model's order.
    """
    return tuple(f.located for f in survey(graph, names, ties).found)


def survey(
    graph: fx.Graph,
    names: Mapping[fx.Node, str],
    ties: Mapping[str, tuple[str, ...]] | None = None,
) -> Survey:
    """The sites of a graph, and what the dataflow did not tell."""
    reading = read(graph, names)
    roles = assign(reading)
    paths = Paths(names, ties or {})
    found = [
        *_linear_sites(reading, roles, paths),
        *_core_sites(reading, roles, paths),
        *_edge_sites(reading, roles, paths),
        *_norm_sites(reading, roles, paths),
        *_table_sites(reading, paths),
        *_input_sites(reading, roles, paths),
    ]
    found.sort(key=lambda f: (f.position, _rank(f.located.site)))
    return Survey(
        _distinct(found, roles),
        tuple(roles.unresolved),
        reading.streams.layers,
        reading.ends,
    )


def _rank(site: Site) -> int:
    return ROLES.index(site.role) if site.role else len(ROLES)


def _distinct(found: Sequence[Found], roles: Roles) -> tuple[Found, ...]:
    """Keep the first of sites that one key would name, and say so."""
    kept: dict[str, Found] = {}
    for one in found:
        site = one.located.site
        if kept.setdefault(site.key, one) is not one:
            why = f"`{site.key}` already names {kept[site.key].located.site.weight}"
            roles.miss(site.weight or site.key, why, site.role)
    return tuple(kept.values())


def _owner(path: str) -> str:
    return path.rpartition(".")[0]


def _common(places: Iterable[Place]) -> Place:
    """The place of all uses; where they differ (shared layers), no layer."""
    distinct = list(dict.fromkeys(places))
    if len(distinct) == 1:
        return distinct[0]
    stacks = {p.stack for p in distinct}
    return Place(
        None,
        stacks.pop() if len(stacks) == 1 else "",
        cross=all(p.cross for p in distinct),
        in_block=any(p.in_block for p in distinct),
    )


def _linear_sites(reading: Reading, roles: Roles, paths: Paths) -> Iterator[Found]:
    by_rows: dict[tuple[fx.Node, object], list[Use]] = defaultdict(list)
    for use in roles.uses:
        anchor = use.linear.anchor
        by_rows[anchor.weight, anchor.rows].append(use)
    for uses in by_rows.values():
        yield from _weight_sites(_agreed(uses, roles, paths), reading, paths)


def _agreed(uses: list[Use], roles: Roles, paths: Paths) -> dict[str, list[Use]]:
    """The uses of one weight by role, one per call.  If its calls have different roles
    it has none: a rewrite of some calls of a weight would have no merged form.  A call
    of which no role is told has that of the others beside it."""
    uses = _joined(uses)
    by_role: dict[str, dict[fx.Node, Use]] = defaultdict(dict)
    for use in uses:
        same = by_role[use.role].setdefault(use.linear.call, use)
        if same is not use:
            merged = replace(same, values=(*same.values, *use.values))
            by_role[use.role][use.linear.call] = merged
    if len({frozenset(calls) for calls in by_role.values()}) == 1:
        return {role: list(calls.values()) for role, calls in by_role.items()}
    path = paths.all(uses[0].linear.anchor.weight)[0]
    roles.miss(path, "its uses have different roles", *sorted(filter(None, by_role)))
    once = {use.linear.call: Use(use.linear, "", use.place) for use in uses}
    return {"": list(once.values())}


def _joined(uses: list[Use]) -> list[Use]:
    """Uses without a role given the only role of the others, all being in one place."""
    told = [use.role for use in uses if use.role]
    if len(set(told)) != 1 or len({use.place for use in uses}) != 1:
        return uses
    return [
        use if use.role else replace(use, role=told[0], values=(use.linear.anchor.y,))
        for use in uses
    ]


def _weight_sites(
    by_role: dict[str, list[Use]], reading: Reading, paths: Paths
) -> Iterator[Found]:
    for role, uses in by_role.items():
        yield _linear_site(role, uses, reading, paths)
    if _is_fused(by_role, reading):
        uses = next(iter(by_role.values()))
        yield _linear_site("", uses, reading, paths, fused=True)


def _is_fused(by_role: dict[str, list[Use]], reading: Reading) -> bool:
    """Whether other channels of the weight go elsewhere than to one role.  Of a weight
    that is split before, no use is the whole."""
    told = ROWED & by_role.keys()
    if any(use.linear.anchor.rows for uses in by_role.values() for use in uses):
        return False
    if len(by_role) > 1:
        return bool(told)
    return bool(told) and any(
        _leaks(use, reading) for uses in by_role.values() for use in uses
    )


def _leaks(use: Use, reading: Reading) -> bool:
    """Whether the linear's output reaches a product or sum past the role's value."""
    y, ends = use.linear.anchor.y, reading.ends
    if not use.values or y in use.values:
        return False
    after = reading.flow.ahead(y, lambda n: n in use.values or n in ends)
    return any(n in ends and n not in use.values for n in after)


def _linear_site(
    role: str, uses: list[Use], reading: Reading, paths: Paths, *, fused: bool = False
) -> Found:
    first: Linear = uses[0].linear
    weight, *others = _ordered(paths.all(first.anchor.weight), role)
    place = _common(use.place for use in uses)
    bias = first.anchor.bias
    site = Site(
        key=f"{_owner(weight)}:{role}",
        role=role,
        kind="linear",
        owner=_owner(weight),
        sizes=(("in", first.inside), ("out", first.outside)),
        dtype=ops.dtype(first.anchor.weight),
        layer=place.layer,
        stack=place.stack,
        cross=place.cross,
        in_block=place.in_block,
        weight=weight,
        bias="" if bias is None else paths.all(bias)[-1 if role == "head" else 0],
        rows=(first.anchor.rows,) if first.anchor.rows else None,
        fused=fused,
        transposed=first.transposed,
        experts=first.experts,
        tied=others[0] if others else "",
        calls=len(uses),
    )
    anchors = tuple(use.linear.anchor for use in uses)
    values = tuple(use.values[0] for use in uses if use.values)
    position = reading.flow.order[first.call]
    return Found(Located(site, anchors), position, () if fused else values)


def _ordered(paths: tuple[str, ...], role: str) -> tuple[str, ...]:
    """The paths of a parameter, the one of this role's module first: tables come
    before the heads that are tied to them."""
    return (paths[-1], *paths[:-1]) if role == "head" else paths


def _core_sites(reading: Reading, roles: Roles, paths: Paths) -> Iterator[Found]:
    by_owner: dict[fx.Node, list[Core]] = defaultdict(list)
    for core in roles.cores:
        by_owner[core.owner.anchor.weight].append(core)
    for weight, cores in by_owner.items():
        yield _core_site(_owner(paths.all(weight)[0]), cores, reading)


def _core_site(owner: str, cores: list[Core], reading: Reading) -> Found:
    first = cores[0]
    place = _common(core.place for core in cores)
    read = first.owner.anchor.x if first.u is None else first.u
    site = Site(
        key=f"{owner}:attention",
        role="attention",
        kind="attention",
        owner=owner,
        sizes=(("hidden", ops.shape(read)[-1]), *first.heads.sizes),
        dtype=ops.dtype(first.attention.out),
        layer=place.layer,
        stack=place.stack,
        cross=place.cross,
        in_block=place.in_block,
        tap=all(core.u is not None for core in cores),
        calls=len(cores),
    )
    anchors = tuple(AttentionAnchor(c.attention, c.heads, c.u, c.turned) for c in cores)
    position = reading.flow.order[first.attention.out]
    return Found(Located(site, anchors), position)


def _edge_sites(reading: Reading, roles: Roles, paths: Paths) -> Iterator[Found]:
    by_key: dict[str, list[Edge]] = defaultdict(list)
    for edge in roles.edges:
        by_key[f"{_owner(_source_path(edge, reading, paths))}:{edge.role}"].append(edge)
    for key, edges in by_key.items():
        yield _edge_site(key, edges, reading, paths)


def _source_path(edge: Edge, reading: Reading, paths: Paths) -> str:
    linear = reading.products.linears.get(edge.source)
    if linear is not None:
        return paths.all(linear.anchor.weight)[0]
    return paths.all(reading.products.opaque[edge.source][0])[0]


def _edge_site(key: str, edges: list[Edge], reading: Reading, paths: Paths) -> Found:
    first = edges[0]
    place = _common(edge.place for edge in edges)
    linear = reading.products.linears.get(first.source)
    flow = reading.flow
    made = linear if linear and _is_output(first.h, linear, flow) else None
    bias = made.anchor.bias if made else None
    site = Site(
        key=key,
        role=first.role,
        kind="hidden",
        owner=key.rpartition(":")[0],
        sizes=(("hidden", ops.shape(first.h)[-1]),),
        dtype=ops.dtype(first.h),
        layer=place.layer,
        stack=place.stack,
        cross=place.cross,
        weight=_source_path(first, reading, paths) if made else "",
        bias="" if bias is None else paths.all(bias)[0],
        transposed=made is not None and made.transposed,
        post_norm=first.norm is not None,
        tap=all(edge.u is not None for edge in edges),
        calls=len(edges),
    )
    anchors = tuple(HiddenAnchor(e.h, e.reader, e.u, e.norm) for e in edges)
    return Found(Located(site, anchors), reading.flow.order[first.h])


def _is_output(h: fx.Node, linear: Linear, flow: Flow) -> bool:
    """Whether only layout, casts and dropout lie between, one matrix made it, and
    nothing is written into it."""
    value = undropped(h)
    made = (linear.call, linear.anchor.y)
    return not linear.experts and value in made and value not in flow.writers


def _norm_sites(reading: Reading, roles: Roles, paths: Paths) -> Iterator[Found]:
    by_gain: dict[fx.Node, list[Norm]] = defaultdict(list)
    for norm in reading.norms:
        if norm.gain is not None:
            by_gain[norm.gain].append(norm)
    for gain, norms in by_gain.items():
        place = _common(roles.place(norm.y) for norm in norms)
        path, *others = paths.all(gain)
        offset = norms[0].offset
        site = Site(
            key=f"{_owner(path)}:norm",
            role="norm",
            kind="norm",
            owner=_owner(path),
            sizes=(("hidden", ops.shape(gain)[-1]),),
            dtype=ops.dtype(gain),
            layer=place.layer,
            stack=place.stack,
            cross=place.cross,
            in_block=place.in_block,
            weight=path,
            bias="" if offset is None else paths.all(offset)[0],
            tied=others[0] if others else "",
            calls=len(norms),
        )
        anchors = (NormAnchor(gain, offset),)
        yield Found(Located(site, anchors), reading.flow.order[norms[0].y])


def _table_sites(reading: Reading, paths: Paths) -> Iterator[Found]:
    by_table: dict[fx.Node, list[EmbeddingAnchor]] = defaultdict(list)
    for gather in reading.products.gathers.values():
        by_table[gather.weight].append(gather)
    for table, gathers in by_table.items():
        path, *others = paths.all(table)
        role = _table_role(table, gathers, reading, paths)
        rows, width = ops.shape(table)
        site = Site(
            # Not of the role: positions that are given are an input like tokens.
            key=f"{_owner(path)}:table",
            role=role,
            kind="embedding",
            owner=_owner(path),
            sizes=(("in", rows), ("hidden", width)),
            dtype=ops.dtype(table),
            stack=_reader_stack(gathers[0], reading) if role == "pos" else "",
            in_block=False,
            weight=path,
            tied=others[0] if others else "",
            calls=len(gathers),
        )
        position = reading.flow.order[gathers[0].call]
        yield Found(Located(site, tuple(gathers)), position)


def _input_sites(reading: Reading, roles: Roles, paths: Paths) -> Iterator[Found]:
    """Where the tokens that the forward is given become the first values of a stack."""
    by_table: dict[fx.Node, list[EmbeddingAnchor]] = defaultdict(list)
    for gather in reading.products.gathers.values():
        if given_tokens(gather.index) and _reader(gather, reading) is not None:
            by_table[gather.weight].append(gather)
    if len(by_table) > 1:
        tables = " and ".join(paths.all(table)[0] for table in by_table)
        roles.miss("input", f"tokens are looked up in {tables}", "input")
        return
    for table, gathers in by_table.items():
        yield _input_site(table, gathers, reading, paths)


def _input_site(
    table: fx.Node, gathers: list[EmbeddingAnchor], reading: Reading, paths: Paths
) -> Found:
    path, *others = paths.all(table)
    rows, width = ops.shape(table)
    site = Site(
        key=f"{_owner(path)}:input",
        role="input",
        kind="input",
        owner=_owner(path),
        sizes=(("hidden", width), ("vocab", rows)),
        dtype=ops.dtype(table),
        stack=_reader_stack(gathers[0], reading),
        in_block=False,
        weight=path,
        tied=others[0] if others else "",
        calls=len(gathers),
    )
    anchors = tuple(InputAnchor(g.call, table, scaled(g.call)) for g in gathers)
    return Found(Located(site, anchors), reading.flow.order[gathers[0].call])


def _table_role(
    table: fx.Node, gathers: list[EmbeddingAnchor], reading: Reading, paths: Paths
) -> str:
    if all(_is_input(gather.index, paths) for gather in gathers):
        return "emb"
    counted = all(is_position(gather, table, reading) for gather in gathers)
    return "pos" if counted else ""


def _reader_stack(gather: EmbeddingAnchor, reading: Reading) -> Stack:
    """The stack whose residual a look-up goes into."""
    stream = _reader(gather, reading)
    return "" if stream is None else stream.stack


def _reader(gather: EmbeddingAnchor, reading: Reading) -> Stream | None:
    """The stream that begins with what a look-up gives."""
    ends, call = reading.ends, gather.call
    for stream in reading.streams.all:
        origin = stream.additions[0].origin
        if call in reading.flow.back(origin, ends.__contains__):
            return stream
    return None


def _is_input(index: fx.Node, paths: Paths) -> bool:
    """Whether the index is an input of the model, as it is or cut: with an axis for the
    batch, unlike a stored row of numbers."""
    node = strip(index, ops.VIEWS | ops.CASTS)
    is_whole = node.op == "placeholder"
    node = strip(node, ops.VIEWS | ops.CASTS | ops.PIECES)
    is_given = node.op == "placeholder" and node not in paths.names
    is_given &= not node.meta.get(ops.STORED, False)
    batch = ops.shape(index)[:1]
    return is_given and (is_whole or ops.shape(node)[:1] == batch != (1,))
