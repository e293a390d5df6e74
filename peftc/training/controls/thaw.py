"""Layers that are trained one after the other, from the top, with smaller rates below.

In: the trained tensors of a plan, whatever methods they are of.  Out: groups by layer:
what lies above the layers, the layers from the last to the first, what lies below.
After every `every` steps one more group is trained; each one at a rate that is `decay`
times smaller than the one above.  What is frozen gets no gradient, so that the
optimizer keeps nothing of it, decays nothing and starts afresh when it is trained.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import NotInRun
from peftc.runtime.names import tensor_path
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from peftc.view import Site

BELOW = ("emb", "pos")
"""Roles of sites under the first layer; without a layer, all others are above."""
Height = tuple[int, int]


class Thaw(Control):
    """Freezes the groups whose time has not come."""

    @cached_property
    def groups(self) -> Mapping[str, int]:
        """The number of the group of every trained parameter, from the top."""
        heights: dict[str, Height] = {}
        for rewrite in self.run.handle.plan.rewrites:
            for tensor in rewrite.tensors:
                path = tensor_path(rewrite.site, tensor)
                own = height(rewrite.site)
                heights[path] = max(own, heights.get(path, own))
        top = (2, 0)  # what the user trains besides, such as a new head
        beside = dict.fromkeys(self.run.beside, 0)  # for what is trained first
        paths = self.run.trained().keys() - beside.keys()
        found = {path: heights.get(path, top) for path in paths}
        order = sorted(set(found.values()), reverse=True)
        return {path: order.index(one) for path, one in found.items()} | beside

    def group(self, path: str) -> Hashable:
        """The number of its group."""
        return self.groups[path]

    def rate(self, group: Hashable) -> float:
        """Smaller from group to group; 0 for what is frozen."""
        assert isinstance(group, int)
        trained = group < self.trained()
        return float(self.options["decay"] ** -group) if trained else 0.0

    def trained(self) -> int:
        """How many groups are trained in this step."""
        return int(self.options["first"] + self.run.step // self._every())

    def before_forward(self) -> None:
        """Refuse a spec that leaves nothing to unfreeze, or never does it."""
        count = len(set(self.groups.values()))
        last = self.run.steps(self) - 1
        if self.options["first"] + last // self._every() < count:
            problem = (
                f"{count} groups of layers are not all trained in {last + 1} steps"
            )
            raise fail(NotInRun(control=self.plan.control, problem=problem))

    def _every(self) -> int:
        every = self.options["every"]
        if every:
            return max(1, self.steps(every))
        if not self.run.epoch:
            problem = (
                "how many steps an epoch has is not known; give `epoch=` or `every`"
            )
            raise fail(NotInRun(control=self.plan.control, problem=problem))
        return self.run.epoch


def height(site: Site) -> Height:
    """Where a site is between input and output: layers in the middle, by number.

    The layers of a decoder are above those of an encoder.
    """
    if site.layer is not None:
        return 1, site.layer + (10**6 if site.stack == "dec" else 0)
    return (0, 0) if site.role in BELOW else (2, 0)
