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
    """Heads by site key, and by stack whether all its self-attentions are causal."""

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
        return cls(
            {key: told for key, told in heads.items() if told},
            _causal_stacks(cores, MaskReader(flow, ends)),
            tuple(map(_unresolved, missing)),
        )

    def completed(self, sites: Iterable[Site]) -> Iterator[Site]:
        """The sites with what was told; without attentions that were not told."""
        sites = tuple(sites)
        stacks = {site.stack for site in sites if site.in_block}
        everywhere = stacks <= self.causal.keys() and all(self.causal.values())
        for site in sites:
            outside = bool(stacks) and not site.in_block and everywhere
            causal = self.causal.get(site.stack, outside)
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


def _causal_stacks(cores: Iterable[Found], masks: MaskReader) -> dict[str, bool]:
    found: dict[str, list[bool]] = defaultdict(list)
    for core in cores:
        site = core.located.site
        if not site.cross:
            attentions = (anchor.attention for anchor in _anchors(core))
            found[site.stack] += map(masks.is_causal, attentions)
    return {stack: all(one) for stack, one in found.items()}


def _unresolved(site: Site) -> Unresolved:
    why = "its heads share keys and values in an order that is not known"
    return Unresolved(f"attention of {site.place}", why, ("attention",))
