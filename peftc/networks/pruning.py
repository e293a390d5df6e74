"""First values of a narrow transformer: rows and columns of the backbone's weights.

In: the sites of the layers that are read, with their roles, and their weights.  Out:
for each parameter the indices that are kept along each of its axes.  The channels of
the residual stream are the same everywhere; inner neurons are chosen for each layer,
and the values of a head for each group of heads that share keys: those of queries with
those of keys, those of values with the columns that read them.

What is kept has the largest sums of magnitudes.  Values that a model rotates are kept
in their pairs, the halves of a head.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from peftc.view import Site

Indices: TypeAlias = tuple[torch.Tensor, ...]
"""Those that are kept along each axis of a parameter."""

RESIDUAL, INNER, MATCHED, MIXED = "residual", "inner", "matched", "mixed"
"""What an axis is: channels of the residual stream; inner neurons; values of heads that
queries and keys match, or that attentions mix."""

ROLES = {
    "q": (MATCHED, RESIDUAL),
    "k": (MATCHED, RESIDUAL),
    "v": (MIXED, RESIDUAL),
    "o": (RESIDUAL, MIXED),
    "up": (INNER, RESIDUAL),
    "gate": (INNER, RESIDUAL),
    "down": (RESIDUAL, INNER),
}
"""What the axes [out, in] of a linear are, by its role."""


@dataclass(frozen=True)
class Frozen:
    """A backbone with its values: the model's sites, what the paths of its parameters
    begin with, and their values by path."""

    sites: tuple[Site, ...]
    prefix: str
    value: Callable[[str], torch.Tensor]


@dataclass(frozen=True)
class Pruning:
    """The choice for some layers; `turned` if queries and keys are rotated."""

    frozen: Frozen
    layers: tuple[str, ...]
    reduction: int
    turned: bool

    def indices(self) -> Mapping[str, Indices]:
        """What is kept of each parameter that a site tells of, by its path."""
        inside = [self._of_layer(layer) for layer in self.layers]
        stream = self._stream([site for sites in inside for site in sites])
        kept: dict[str, Indices] = {}
        for layer, sites in zip(self.layers, inside, strict=True):
            kept |= self._layer(sites, self._heads(layer), stream)
        width = len(stream) * self.reduction
        for site in self.frozen.sites:
            if site.kind == "norm" and site.size("hidden") == width:
                kept |= {n: (stream,) for n in (site.weight, site.bias) if n}
        return kept

    def _of_layer(self, layer: str) -> list[Site]:
        return [
            site
            for site in self.frozen.sites
            if site.role in ROLES and site.owner.startswith(f"{layer}.")
        ]

    def _heads(self, layer: str) -> Site:
        """The attention of a layer, which knows its heads."""
        return next(
            site
            for site in self.frozen.sites
            if site.kind == "attention" and site.owner.startswith(f"{layer}.")
        )

    def _sums(self, sites: Sequence[Site], axis: str) -> torch.Tensor:
        """The magnitudes of all rows or columns that are of an axis, summed."""
        found = [
            self._matrix(site).sum(1 - ROLES[site.role].index(axis))
            for site in sites
            if axis in ROLES[site.role]
        ]
        return torch.stack(found).sum(0)

    def _matrix(self, site: Site) -> torch.Tensor:
        """The magnitudes of a site's rows, [out, in]."""
        whole = self.frozen.value(site.weight).abs().float()
        whole = whole.mT if site.transposed else whole
        return whole if site.rows is None else whole[_numbers(site)]

    def _best(self, scores: torch.Tensor) -> torch.Tensor:
        """The indices of the largest along the last axis, in order."""
        count = scores.shape[-1] // self.reduction
        return scores.topk(count, -1).indices.sort(-1).values

    def _stream(self, sites: Sequence[Site]) -> torch.Tensor:
        return self._best(self._sums(sites, RESIDUAL))

    def _layer(
        self, sites: Sequence[Site], heads: Site, stream: torch.Tensor
    ) -> Mapping[str, Indices]:
        """What is kept of the weights and biases of a layer."""
        inner = self._best(self._sums(sites, INNER))
        pieces: dict[str, list[tuple[Site, torch.Tensor, torch.Tensor]]]
        pieces = defaultdict(list)
        groups = {
            axis: self._in_groups(sites, axis, heads) for axis in (MATCHED, MIXED)
        }
        for site in sites:
            chosen = {RESIDUAL: stream, INNER: inner}
            chosen |= {a: _spread(g, site, heads) for a, g in groups.items()}
            out, into = (chosen[axis] for axis in ROLES[site.role])
            rows = out if site.rows is None else _numbers(site)[out]
            pieces[site.weight].append((site, rows, into))
        return dict(pair for some in pieces.values() for pair in _joined(some))

    def _in_groups(
        self, sites: Sequence[Site], axis: str, heads: Site
    ) -> tuple[torch.Tensor, int]:
        """The values kept of each group's heads [groups, kept], and of how many."""
        groups = heads.size("kv_heads")
        width = heads.size("key" if axis == MATCHED else "value") // groups
        scores = torch.zeros(groups, width)
        for site in sites:
            if axis in ROLES[site.role]:
                sums = self._sums([site], axis)
                scores += sums.view(groups, -1, width).sum(1).to(scores.device)
        if axis == MATCHED and self.turned:
            half = width // 2
            pairs = self._best(scores[:, :half] + scores[:, half:])
            return torch.cat([pairs, pairs + half], 1), width
        return self._best(scores), width


def _numbers(site: Site) -> torch.Tensor:
    """The numbers of a site's rows."""
    assert site.rows is not None
    return torch.cat([torch.arange(first, last) for first, last in site.rows])


def _spread(group: tuple[torch.Tensor, int], site: Site, heads: Site) -> torch.Tensor:
    """What is kept of all heads of a site: those of queries use their group's."""
    values, width = group
    if site.role in ("q", "o"):
        values = values.repeat_interleave(heads.size("heads") // len(values), 0)
    starts = torch.arange(len(values))[:, None] * width
    return (starts + values).flatten()


def _joined(
    pieces: Sequence[tuple[Site, torch.Tensor, torch.Tensor]],
) -> Iterator[tuple[str, Indices]]:
    """The indices of a weight, of which several sites may be rows, and of its bias."""
    site, _, into = pieces[0]
    rows = torch.cat([rows for _, rows, _ in pieces]).sort().values
    yield site.weight, (into, rows) if site.transposed else (rows, into)
    if site.bias:
        yield site.bias, (rows,)


def taken(value: torch.Tensor, indices: Indices) -> torch.Tensor:
    """The kept part of a parameter."""
    for axis, index in enumerate(indices):
        value = value.index_select(axis, index.to(value.device))
    return value
