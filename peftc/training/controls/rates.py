"""Learning rates of some tensors, as multiples of all others'.

In: trained tensors: the operands, or all added tensors whose names fit `tensors`
(`*.B`).  Out: their rate, `times` what the optimizer was given.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING

from peftc.diagnostics.core import fail
from peftc.diagnostics.schedules import NothingFits
from peftc.runtime.parameters import added
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from peftc.training.control import Batch


class Rate(Control):
    """Multiplies the rate of its operands."""

    def paths(self) -> frozenset[str]:
        """The paths of the tensors it is about."""
        pairs = ((place, name) for place in self.places for name in place.operands)
        return frozenset(self.run.values.path(place.site, n) for place, n in pairs)

    def group(self, path: str) -> Hashable:
        """Whether a parameter is one of its tensors."""
        return path in self._paths

    @cached_property
    def _paths(self) -> frozenset[str]:
        return self.paths()

    def rate(self, group: Hashable) -> float:
        """`times` for them, else 1."""
        return float(self.options["times"]) if group else 1.0


class Rates(Rate):
    """Multiplies the rate of all tensors whose names fit."""

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Refuse names that nothing has."""
        if not self.paths():
            plan = self.run.handle.plan
            names = {tensor.name for _, tensor, _ in added(plan)}
            known = ", ".join(f"`{name}`" for name in sorted(names)[:8])
            fields = {"control": self.plan.control, "what": self.options["tensors"]}
            raise fail(NothingFits(span=None, **fields, known=known))

    def paths(self) -> frozenset[str]:
        """The paths of the trained tensors whose names fit."""
        fits = self.options["tensors"]
        trained = (
            (t, p) for _, t, p in added(self.run.handle.plan) if t.kind == "param"
        )
        return frozenset(path for t, path in trained if fnmatchcase(t.name, fits))
