"""What is read off attentions by running pieces of the graph: heads, and causality.

In: the sites of a survey.  Out: the same sites, attentions with the heads that share
keys told apart, all sites with whether their tokens see later ones; an attention whose
heads are not understood is left out and reported.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftc.sites.anchors import AttentionAnchor
from peftc.sites.heads import HeadFinder
from peftc.sites.masks import MaskReader
from peftc.view import Unresolved

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import fx

    from peftc.sites.flow import Flow
    from peftc.sites.heads import Heads
    from peftc.sites.locate import Found
    from peftc.view import Site


@dataclass(frozen=True)
class Cores:
    """Heads by site key, and whether each self-attention is causal; those that do not
    tell are taken to be: what looks at single tokens is right in either case."""

    heads: dict[str, Heads]
    causal: dict[str, bool]
    unresolved: tuple[Unresolved, ...]

    @classmethod
    def of(cls, found: Sequence[Found], flow: Flow, ends: frozenset[fx.Node]) -> Cores:
        """Run what tells the heads and the masks of all attentions."""
        cores = [one for one in found if one.located.site.kind == "attention"]
        finder = HeadFinder(flow, ends)
        heads = {c.located.site.key: _heads(c, finder) for c in cores}
        missing = (c.located.site for c in cores if not heads[c.located.site.key])
        causal = _causal(cores, MaskReader(flow, ends))
        hidden = (c.located.site for c in cores if causal[c.located.site.key] is None)
        return cls(
            {key: told for key, told in heads.items() if told},
            {
                core.located.site.key: causal[core.located.site.key] is not False
                for core in cores
                if not core.located.site.cross
            },
            (*map(_unresolved, missing), *map(_hidden, hidden)),
        )

    def completed(self, sites: Iterable[Site]) -> Iterator[Site]:
        """The sites with what was told; without attentions that were not told."""
        sites = tuple(sites)
        towers = _towers(sites, self.causal)
        stacks = {site.stack for site in sites if site.in_block}
        everywhere = bool(stacks) and stacks <= {tower.stack for tower in towers}
        everywhere &= all(tower.causal for tower in towers)
        for place, site in enumerate(sites):
            causal = _in_tower(place, site, towers, everywhere=everywhere)
            if site.kind != "attention":
                yield replace(site, causal=causal)
            elif site.key in self.heads:
                sizes = (site.sizes[0], *self.heads[site.key].sizes)
                yield replace(site, causal=causal, sizes=sizes)


def _anchors(found: Found) -> list[AttentionAnchor]:
    return [a for a in found.located.anchors if isinstance(a, AttentionAnchor)]


def _heads(found: Found, finder: HeadFinder) -> Heads | None:
    """The heads of all uses of a site; none if they differ."""
    told = {finder.find(a.attention, a.heads) for a in _anchors(found)}
    return told.pop() if len(told) == 1 else None


def _causal(cores: Iterable[Found], masks: MaskReader) -> dict[str, bool | None]:
    """Whether each attention hides what comes later; None if that is not told."""
    return {core.located.site.key: _is_causal(core, masks) for core in cores}


def _is_causal(core: Found, masks: MaskReader) -> bool | None:
    """For all uses of a site; one that is not told leaves it open."""
    told = {masks.is_causal(anchor.attention) for anchor in _anchors(core)}
    return None if None in told else all(told)


def _hidden(site: Site) -> Unresolved:
    why = "a stored mask may hide later tokens; they are taken to be hidden"
    return Unresolved(f"order of {site.place}", why)


@dataclass
class _Tower:
    """Layers one after another: sites and places of the self-attentions, and whether
    all are causal."""

    attentions: list[tuple[int, Site]]
    causal: bool = True

    @property
    def stack(self) -> str:
        """The stack of its sites."""
        return self.attentions[0][1].stack


def _towers(sites: Sequence[Site], causal: dict[str, bool]) -> list[_Tower]:
    """The towers of a model: another begins where the numbers of layers do."""
    towers: dict[str, list[_Tower]] = defaultdict(list)
    for place, site in enumerate(sites):
        if site.key in causal:
            mine = towers[site.stack]
            last = mine[-1].attentions[-1][1].layer if mine else None
            if not mine or (site.layer or 0) < (last or 0):
                mine.append(_Tower([]))
            mine[-1].attentions.append((place, site))
            mine[-1].causal &= causal[site.key]
    return [tower for group in towers.values() for tower in group]


def _in_tower(
    place: int, site: Site, towers: list[_Tower], *, everywhere: bool
) -> bool:
    """Whether a site's tokens see no later ones: as its tower says, which has a near
    attention in the same layer; outside of layers, as all towers of its stack say."""
    near = [
        (abs(place - at), tower.causal)
        for tower in towers
        for at, core in tower.attentions
        if (core.stack, core.layer) == (site.stack, site.layer)
    ]
    if near and site.layer is not None:
        return min(near)[1]
    own = [t.causal for t in towers if t.stack == site.stack]
    return all(own) if own else not site.in_block and everywhere


def _unresolved(site: Site) -> Unresolved:
    why = "its heads share keys and values in an order that is not known"
    return Unresolved(f"attention of {site.place}", why, ("attention",))
