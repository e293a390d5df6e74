"""A control: what one `train` statement of a method does while a model is trained.

In: a `ControlPlan` and the run it belongs to.  Out: a `Control`, whose events a run
calls in their order.  A package writes its own by deriving from `Control`, and offers
its signature under the entry point `peftc.controls`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    import torch
    from torch import nn

    from peftc.plan.training import ControlPlan, Place
    from peftc.training.run import Run

Batch: TypeAlias = "Mapping[str, Any]"
"""Keyword arguments of the model's forward, labels among them."""

State: TypeAlias = "Mapping[str, torch.Tensor]"
"""What is saved of a control; numbers are tensors without axes."""


@dataclass(frozen=True)
class Forward:
    """One forward of the model and the loss so far, a scalar."""

    batch: Batch
    outputs: Any
    loss: torch.Tensor


class Control:
    """The events of one control; each does nothing unless it is overridden.

    `plan.options` are its options, `self.places` the sites it works at.  Controls of a
    run are called in the order of the spec.
    """

    schedules: ClassVar[bool] = False
    """Whether it sets the learning rate of the whole run, so that no other may."""
    optimizes: ClassVar[bool] = False
    """Whether it makes the optimizer of the run, so that no other may."""

    def __init__(self, plan: ControlPlan, run: Run) -> None:
        self.plan = plan
        self.run = run
        self.options: dict[str, Any] = dict(plan.options)

    @property
    def places(self) -> Sequence[Place]:
        """The sites it works at, in the model's order."""
        return self.plan.places

    @property
    def needs_data(self) -> bool:
        """Whether `before_training` has to see batches."""
        return False

    def steps(self, duration: float) -> int:
        """A duration in steps: below 1 it is a share of the run.

        Raises:
            PeftcError: PEFT690 if the length of the run matters and is not known.
        """
        return int(duration if duration >= 1 else duration * self.run.steps(self))

    # --- events, in their order ------------------------------------------------------

    def before_training(self, batches: Sequence[Batch]) -> None:
        """Before the optimizer is made; `batches` are empty unless it needs data."""

    def before_forward(self) -> None:
        """Before the first forward of a step; `self.run.step` steps were done."""

    @property
    def entries(self) -> Sequence[str]:
        """The entries of a batch that are for it, and not for the model."""
        return ()

    def before_batch(self, batch: Batch) -> None:
        """Before every forward, in training and evaluation, with all entries."""

    @property
    def asks(self) -> Mapping[str, Any]:
        """Arguments of the model's forward in training, beside those of a batch."""
        return {}

    def loss(self, forward: Forward) -> torch.Tensor:
        """The loss to go on with, after a forward of the model in training."""
        return forward.loss

    def after_backward(self) -> None:
        """When the gradients of a step are complete, before the optimizer's step."""

    def after_optimizer(self) -> None:
        """When the optimizer has changed the parameters."""

    def finalize(self) -> None:
        """After the last step; called once."""

    @property
    def notes(self) -> Sequence[str]:
        """What is done in another way than asked for, for people."""
        return ()

    # --- parameters ------------------------------------------------------------------

    @property
    def parameters(self) -> Mapping[str, nn.Parameter]:
        """What it trains beside the model, by name: made in `before_training`, trained
        and saved in checkpoints with the model's, and gone after `finalize`."""
        return {}

    def group(self, path: str) -> Hashable:
        """Parameters to which the same learning rates apply have equal groups."""
        return None

    def rate(self, group: Hashable) -> float:
        """What the learning rate of a group is multiplied by in this step; 0 freezes
        its parameters, unless it schedules the whole run: they get no gradient."""
        return 1.0

    @property
    def has_rates(self) -> bool:
        """Whether it has a say in learning rates."""
        return type(self).rate is not Control.rate

    @property
    def clips(self) -> bool:
        """Whether it limits the norm of gradients, so that nobody else may."""
        return False

    def make(self, lr: float) -> torch.optim.Optimizer:
        """The optimizer, for one that `optimizes`."""
        raise NotImplementedError

    # --- state -----------------------------------------------------------------------

    def state(self) -> State:
        """What resuming needs and the model's own tensors do not hold."""
        return {}

    def load(self, state: State) -> None:
        """Take a state that `state` gave."""
