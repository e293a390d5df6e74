"""A training run: the training plan of a compiled model, event by event.

In: a compiled model, the number of steps and data to calibrate with.  Out: a `Run`,
which a loop of five lines or transformers' Trainer (`peftc.training.trainer`) drives:

    run = Run(model, steps=1000, calibration=batches)
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=1e-3))
    for batch in batches:
        run.loss(batch).backward()
        run.optimize(optimizer)
    run.finalize()

Everything random is drawn from (seed of the plan, step, name), so that a run that was
resumed goes on as it would have.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import (
    NoCalibration,
    NotTrained,
    StepsUnknown,
    Unreached,
    WrongTrainingState,
)
from peftc.runtime.replan import replan
from peftc.training.control import Control, Forward
from peftc.training.finite import check_loss
from peftc.training.load import check_single, load_controls
from peftc.training.values import Values

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from torch import nn

    from peftc.plan.training import TrainingPlan
    from peftc.plan.types import Plan
    from peftc.runtime.handle import Handle
    from peftc.training.control import Batch

KEY = "peftc_group"
"""In a group of an optimizer: what tells it from others."""
STEP = "step"
TRAINED = "trained."
"""In the state of a control, before the names of its parameters."""


class Run:
    """The state of a training run.

    `step` is how many steps of the optimizer were done.  `values` gives controls the
    tensors of the model; `forward` runs it.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int | None = None,
        epoch: int | None = None,
        calibration: Iterable[Batch] = (),
        teachers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        """Start a run; calibrates at once.

        Args:
            steps: how many steps the optimizer will do.
            epoch: how many of them an epoch has.
            calibration: batches for controls that need data, labels included.
            teachers: models that the spec names, to learn from.

        Raises:
            PeftcError: PEFT691 if a control needs data and there is none, PEFT696 if
                two decide the same thing.
        """
        if not hasattr(model, "peftc"):
            raise fail(NotTrained(problem="the model is not compiled"))
        self.model: Any = model
        self.handle.unattended = False
        self.values = Values(self.model)
        self.step = 0
        self.total = steps
        self.epoch = epoch
        self.teachers = dict(teachers or {})
        self.folder = ""
        """Where the checkpoints of the run are, if it has any."""
        self.plan: TrainingPlan = self.handle.training_plan()
        self.controls = load_controls(self.plan, self)
        check_single(self.controls)
        self._begun = False
        self._rates: list[float] = []
        self._finished = False
        self.optimizer: torch.optim.Optimizer | None = None
        self._calibrate(calibration)

    def _calibrate(self, calibration: Iterable[Batch]) -> None:
        needing = [control for control in self.controls if control.needs_data]
        batches = list(calibration) if needing else []
        if needing and not batches:
            raise fail(NoCalibration(control=needing[0].plan.control))
        for control in self.controls:
            control.before_training(batches if control.needs_data else ())

    @property
    def handle(self) -> Handle:
        """The model's handle; another one after `replan`."""
        handle: Handle = self.model.peftc
        return handle

    # --- what controls ask for -------------------------------------------------------

    @property
    def needs_data(self) -> bool:
        """Whether any control has to see batches before training."""
        return any(control.needs_data for control in self.controls)

    @property
    def reads_outputs(self) -> bool:
        """Whether any control reads what a forward gives, beside its loss."""
        return any(type(control).loss is not Control.loss for control in self.controls)

    def steps(self, control: Control) -> int:
        """How many steps the run has.

        Raises:
            PeftcError: PEFT690 if nobody said it.
        """
        if self.total is None:
            raise fail(StepsUnknown(control=control.plan.control))
        return self.total

    def generator(self, *key: object) -> torch.Generator:
        """A stream of random numbers for this step and name, on the CPU."""
        text = "\0".join(map(str, (self.handle.plan.seed, self.step, *key)))
        digest = hashlib.sha256(text.encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)

    def batch(self, batch: Batch) -> Batch:
        """A batch for the model: controls have seen it, and what is theirs is gone."""
        for control in self.controls:
            control.before_batch(batch)
        own = {entry for control in self.controls for entry in control.entries}
        return {entry: value for entry, value in batch.items() if entry not in own}

    def forward(self, batch: Batch) -> Any:
        """The outputs of the model for a batch."""
        return self.model(**batch)

    def trained(self) -> Mapping[str, nn.Parameter]:
        """The parameters that are trained, by path; those of controls last."""
        named = self.model.named_parameters()
        return {**{path: p for path, p in named if p.requires_grad}, **self.beside}

    @property
    def beside(self) -> Mapping[str, nn.Parameter]:
        """What controls train beside the model, by the control's name and its own."""
        return {
            f"{control.plan.name}.{name}": parameter
            for control in self.controls
            for name, parameter in control.parameters.items()
        }

    @property
    def asked(self) -> dict[str, Any]:
        """Arguments of the model's forward in training, beside those of a batch."""
        return dict(chain.from_iterable(c.asks.items() for c in self.controls))

    def task_loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch without what methods add to it, a scalar."""
        loss: torch.Tensor = self.forward(self.batch(batch)).loss
        return loss

    def replan(self, plan: Plan, values: Mapping[str, torch.Tensor]) -> None:
        """Go on with another plan; before the optimizer is made, or after the end."""
        replan(self.handle, plan, values)

    def forget(self, parameters: Iterable[torch.Tensor]) -> None:
        """Drop what the optimizer has gathered about parameters."""
        for parameter in parameters if self.optimizer else ():
            assert self.optimizer is not None
            self.optimizer.state.pop(parameter, None)

    # --- the loop --------------------------------------------------------------------

    def loss(self, batch: Batch) -> torch.Tensor:
        """The whole loss of a batch, a scalar; batches of a step may be several."""
        self.before_forward()
        batch = self.batch(batch)
        outputs = self.forward({**batch, **self.asked})
        return self.whole_loss(Forward(batch, outputs, outputs.loss))

    def optimize(self, optimizer: torch.optim.Optimizer) -> None:
        """One step of the optimizer with everything around it; clears gradients."""
        self.before_optimizer(optimizer)
        optimizer.step()
        self.after_optimizer(optimizer)
        optimizer.zero_grad()

    def before_forward(self) -> None:
        """The event before the first forward of a step; later calls do nothing."""
        if not self._begun:
            self._begun = True
            for control in self.controls:
                control.before_forward()

    def whole_loss(self, forward: Forward) -> torch.Tensor:
        """The loss of a forward with what controls and methods make of it.

        Raises:
            PeftcError: PEFT688 if it is not finite.
        """
        loss = forward.loss
        for control in self.controls:
            loss = control.loss(Forward(forward.batch, forward.outputs, loss))
        added = self.values.losses() if self.plan.losses else None
        whole = loss if added is None else loss + added.to(loss.dtype)
        check_loss(self.model, forward.batch, whole, self.step + 1, self.folder)
        return whole

    def before_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """The event after the backward; sets the learning rates of this step.

        Raises:
            PeftcError: PEFT693 if there was no forward in this step.
        """
        if not self._begun:
            raise fail(NotTrained(problem="no `loss` was computed in this step"))
        self.optimizer = optimizer
        if self.step == 0:
            self._check_reached()
        self.freeze(optimizer)
        for control in self.controls:
            control.after_backward()
        self._rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * math.prod(r for _, r in self._factors(group))

    def _check_reached(self) -> None:
        """Warn if the first step has no gradient for something that is trained."""
        idle = [path for path, p in self.trained().items() if p.grad is None]
        if idle:
            warnings.warn(str(Unreached(first=idle[0], count=len(idle))), stacklevel=3)

    def freeze(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the gradients of groups that are frozen in this step.

        An optimizer leaves alone what has no gradient, and keeps nothing of it.
        """
        for group in optimizer.param_groups:
            factors = self._factors(group)
            if any(rate == 0 and not control.schedules for control, rate in factors):
                for parameter in group["params"]:
                    parameter.grad = None

    def _factors(self, group: Mapping[str, Any]) -> list[tuple[Control, float]]:
        """What each control multiplies the rate of a group by."""
        if KEY not in group:
            if any(control.has_rates for control in self.controls):
                problem = "the optimizer was not made with `run.parameter_groups`"
                raise fail(NotTrained(problem=problem))
            return []
        keys = zip(self.controls, group[KEY], strict=True)
        return [(control, control.rate(key)) for control, key in keys]

    def after_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """The event after the optimizer's step; puts the learning rates back."""
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate
        for control in self.controls:
            control.after_optimizer()
        for parameter in self.beside.values():  # no part of what a Trainer clears
            parameter.grad = None
        self.step += 1
        self._begun = False

    def finalize(self) -> None:
        """What methods do after the last step; a second call does nothing."""
        if not self._finished:
            self._finished = True
            for control in self.controls:
                control.finalize()

    # --- parameters ------------------------------------------------------------------

    def parameter_groups(
        self, lr: float, weight_decay: float = 0.0
    ) -> list[dict[str, Any]]:
        """Groups for an optimizer: of each all parameters have one learning rate.

        What has fewer than two axes (scales, biases, gates) does not decay.
        """
        like = {"lr": lr, "weight_decay": weight_decay}
        return self.split(by_axes(self.trained().values(), like))

    def make_optimizer(self, lr: float) -> torch.optim.Optimizer:
        """The optimizer that the spec asks for; AdamW if it asks for none."""
        asked = next((c for c in self.controls if c.optimizes), None)
        return asked.make(lr) if asked else torch.optim.AdamW(self.parameter_groups(lr))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done in another way than the spec asks for, for people."""
        return tuple(note for control in self.controls for note in control.notes)

    def split(self, groups: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Groups of an optimizer, divided where controls tell parameters apart."""
        named = chain(self.model.named_parameters(), self.beside.items())
        paths = {id(p): path for path, p in named}
        found: dict[tuple[int, Hashable], dict[str, Any]] = {}
        for index, group in enumerate(groups):
            for parameter in group["params"]:
                key = tuple(c.group(paths[id(parameter)]) for c in self.controls)
                new = {**group, "params": [], KEY: key}
                found.setdefault((index, key), new)["params"].append(parameter)
        return list(found.values())

    # --- state -----------------------------------------------------------------------

    def state_dict(self) -> dict[str, torch.Tensor]:
        """What resuming needs beside the model and the optimizer."""
        state = {STEP: torch.tensor(self.step)}
        for control in self.controls:
            for name, value in control.state().items():
                state[f"{control.plan.name}.{name}"] = value
            for name, parameter in control.parameters.items():
                key = f"{control.plan.name}.{TRAINED}{name}"
                state[key] = parameter.detach().clone()
        return state

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from a state that `state_dict` gave.

        Raises:
            PeftcError: PEFT692 if it is of other controls; nothing is changed then.
        """
        names = [control.plan.name for control in self.controls]
        foreign = {n.partition(".")[0] for n in state} - {STEP, *names}
        if foreign or STEP not in state:
            problem = "it has no step"
            if foreign:
                problem = f"it is of `{min(foreign)}`, which this plan does not have"
            raise fail(WrongTrainingState(problem=problem))
        parts = [_below(f"{name}.", state) for name in names]
        for control, part in zip(self.controls, parts, strict=True):
            _check_trained(control, _below(TRAINED, part))
        for control, part in zip(self.controls, parts, strict=True):
            trained = _below(TRAINED, part)
            for name, parameter in control.parameters.items():
                parameter.data.copy_(trained[name])
            own = {n: v for n, v in part.items() if not n.startswith(TRAINED)}
            control.load(own)
        self.step = int(state[STEP])
        self._begun = False


def by_axes(
    parameters: Iterable[nn.Parameter], like: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Groups like another: what has two axes or more, and the rest without decay."""
    every = list(parameters)
    wide = [p for p in every if p.dim() >= 2]
    flat = [p for p in every if p.dim() < 2]
    groups: list[dict[str, Any]] = [
        {**like, "params": wide},
        {**like, "params": flat, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _below(start: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What has names that start so, without the start."""
    pairs = ((n, v) for n, v in state.items() if n.startswith(start))
    return {name.removeprefix(start): value for name, value in pairs}


def _check_trained(control: Control, state: Mapping[str, torch.Tensor]) -> None:
    """Refuse values for other parameters than a control has."""
    wanted = {name: p.shape for name, p in control.parameters.items()}
    if {name: value.shape for name, value in state.items()} != wanted:
        problem = f"`{control.plan.name}` trains other tensors of its own"
        raise fail(WrongTrainingState(problem=problem))
