"""The optimizer that a spec asks for, with its settings.

In: parameter groups and a learning rate.  Out: the optimizer.  `paged` puts its state
into memory that may move to the host (bitsandbytes, on a GPU); where there is none, the
plain optimizer gives the same numbers, and the run's `notes` say so.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.schedules import OtherOptimizer
from peftc.training.control import Control

if TYPE_CHECKING:
    from collections.abc import Sequence

CLASSES: dict[str, type[torch.optim.Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": torch.optim.SGD,
}
UNPAGED = "the optimizer is not paged: that takes bitsandbytes and a GPU"


class Optimizer(Control):
    """Makes the optimizer, and clips gradients."""

    optimizes: ClassVar[bool] = True

    @property
    def paged(self) -> bool:
        """Whether its state is really paged here."""
        on_gpu = all(p.is_cuda for p in self.run.trained().values())
        can = on_gpu and find_spec("bitsandbytes") is not None
        return bool(self.options["paged"] and can)

    @property
    def notes(self) -> Sequence[str]:
        """What is done in another way than asked for, for people."""
        return [UNPAGED] if self.options["paged"] and not self.paged else []

    @property
    def clips(self) -> bool:
        """Whether a largest norm is given."""
        return bool(self.options["max_norm"])

    def make(self, lr: float) -> torch.optim.Optimizer:
        """The optimizer of all trained parameters."""
        groups = self.run.parameter_groups(
            self.options["lr"] or lr, self.options["weight_decay"]
        )
        settings: dict[str, Any] = {}
        if self.options["kind"] != "sgd":
            betas = (self.options["beta1"], self.options["beta2"])
            settings = {"betas": betas, "eps": self.options["eps"]}
        made: torch.optim.Optimizer = self._class()(groups, **settings)
        return made

    def _class(self) -> Any:
        kind = self.options["kind"]
        if not self.paged or kind == "sgd":
            return CLASSES[kind]
        import bitsandbytes

        return {
            "adamw": bitsandbytes.optim.PagedAdamW,
            "adam": bitsandbytes.optim.PagedAdam,
        }[kind]

    def after_backward(self) -> None:
        """Refuse another optimizer; clip the norm of all gradients."""
        used = self.run.optimizer
        if not isinstance(used, self._class()):
            names = {"planned": self.options["kind"], "used": type(used).__name__}
            raise fail(OtherOptimizer(span=None, **names))
        if self.clips:
            trained = self.run.trained().values()
            torch.nn.utils.clip_grad_norm_(trained, self.options["max_norm"])
