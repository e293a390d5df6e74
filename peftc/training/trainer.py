"""A training run driven by transformers' Trainer, or one that derives from it.

In: a Trainer of a compiled model, before `train()`.  Out: its `Run`: the events are a
callback; the loss, the groups of the optimizer and what checkpoints hold are hooked on
this instance, so that any subclass (TRL's trainers) keeps what it does itself.
"""

from __future__ import annotations

import math
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from safetensors.torch import save as tensor_bytes
from torch import nn
from transformers import TrainerCallback

from peftc.diagnostics.core import fail
from peftc.diagnostics.training import NotTrained, WrongTrainingState
from peftc.files import write_atomically
from peftc.training.control import Forward
from peftc.training.run import Run, by_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from transformers import Trainer

    from peftc.training.control import Batch

STATE_FILE = "peftc_training.safetensors"
"""In a checkpoint: the state of the run."""
CALIBRATION = 16
"""Batches of the training data that controls see before training."""


def attach(
    trainer: Trainer,
    *,
    batches: int = CALIBRATION,
    teachers: Mapping[str, nn.Module] | None = None,
) -> Run:
    """Let a Trainer do what the methods of its model ask for; call it before `train()`.

    Args:
        trainer: its model is compiled.  With `lr_scheduler_type` left alone, a control
            that schedules the learning rate replaces the Trainer's own schedule.
        batches: of the training data that calibration sees, if a control needs any.
        teachers: models that the spec names, to learn from.

    Training stops before a step whose loss is not finite (PEFT688).

    Raises:
        PeftcError: PEFT693 if the model is not compiled, or what a control raises.
    """
    model: Any = trainer.accelerator.unwrap_model(trainer.model)
    if not hasattr(model, "peftc"):
        raise fail(NotTrained(problem="the model of the Trainer is not compiled"))
    run = Run(model, calibration=_Batches(trainer, batches), teachers=teachers)
    run.folder = str(trainer.args.output_dir or "")
    if any(control.schedules for control in run.controls):
        trainer.args.lr_scheduler_type = "constant"
    if any(control.clips for control in run.controls):
        trainer.args.max_grad_norm = 0.0
    trainer.add_callback(Events(run, trainer))
    for name, hook in _HOOKS.items():
        setattr(trainer, name, hook(trainer, run, getattr(trainer, name)))
    _keep_entries(trainer, run)
    return run


def _keep_entries(trainer: Trainer, run: Run) -> None:
    """Let what batches have for controls pass where the Trainer drops columns that the
    model does not take."""
    inner: Any = trainer
    inner._set_signature_columns_if_needed()
    own = (entry for control in run.controls for entry in control.entries)
    inner._signature_columns = [*(inner._signature_columns or ()), *own]


class _Batches:
    """The first batches of a Trainer's data; made only if somebody looks at them."""

    def __init__(self, trainer: Trainer, count: int) -> None:
        self.trainer = trainer
        self.count = count

    def __iter__(self) -> Any:
        with torch.random.fork_rng():
            loader = self.trainer.get_train_dataloader()
            for _, batch in zip(range(self.count), loader, strict=False):
                yield dict(self.trainer._prepare_inputs(batch))


class Events(TrainerCallback):
    """The Trainer's events as those of a run."""

    def __init__(self, run: Run, trainer: Trainer) -> None:
        self.run = run
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """Tell the run how long it is, and its epochs."""
        self.run.total = state.max_steps
        loader = more.get("train_dataloader")
        if isinstance(loader, Sized):
            batches = args.gradient_accumulation_steps
            self.run.epoch = max(1, math.ceil(len(loader) / batches))

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Before the forwards of a step."""
        self.run.before_forward()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Gradients are complete, unscaled and clipped."""
        self.run.before_optimizer(_plain(self.trainer.optimizer))

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer has stepped."""
        self.run.after_optimizer(_plain(self.trainer.optimizer))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """After the last step."""
        self.run.finalize()


def _plain(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer that accelerate has wrapped."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner


# --- hooks: what replaces a method of the Trainer, given the one it had ---------------


def _loss_hook(trainer: Trainer, run: Run, own: Callable[..., Any]) -> Any:
    def compute_loss(
        model: Any, inputs: Batch, return_outputs: bool = False, **more: Any
    ) -> Any:
        batch = dict(run.batch(inputs))
        reads = model.training and run.reads_outputs
        given = {**batch, **run.asked} if model.training else dict(batch)
        asked = return_outputs or reads
        found = own(model, given, return_outputs=asked, **more)
        loss, outputs = found if asked else (found, None)
        if model.training:
            share = _share(trainer, more.get("num_items_in_batch"))
            seen = _with_history(run, batch, outputs) if reads else outputs
            whole = run.whole_loss(Forward(batch, seen, loss / share))
            loss = whole * share
        return (loss, outputs) if return_outputs else loss

    return compute_loss


def _with_history(run: Run, batch: Batch, outputs: Any) -> Any:
    """Outputs that gradients pass through: some Trainers compute a loss without logits,
    and give logits of a second forward that has none."""
    if outputs.logits.requires_grad:
        return outputs
    return run.forward({**batch, **run.asked})


def _share(trainer: Trainer, items: object) -> float:
    """What of a step's loss the loss of one of its batches is.

    With several batches in a step the loss of each is divided by the items of all of
    them, where the model can; what is added to it has to be divided as well.
    """
    batches = getattr(trainer, "current_gradient_accumulation_steps", None) or 1
    divided = trainer.model_accepts_loss_kwargs and items is not None
    return 1 / batches if divided else 1.0


def _optimizer_hook(trainer: Trainer, run: Run, own: Callable[..., Any]) -> Any:
    def create_optimizer(*args: Any, **more: Any) -> Any:
        asked = any(control.optimizes for control in run.controls)
        if asked and trainer.optimizer is None:
            trainer.optimizer = run.make_optimizer(trainer.args.learning_rate)
            return trainer.optimizer
        optimizer = own(*args, **more)
        groups = optimizer.param_groups
        known = {id(p) for group in groups for p in group["params"]}
        more_trained = [p for p in run.beside.values() if id(p) not in known]
        found = run.split([*groups, *by_axes(more_trained, groups[0])])
        optimizer.param_groups[:] = found
        return optimizer

    return create_optimizer


def _clip_hook(trainer: Trainer, run: Run, own: Callable[..., Any]) -> Any:
    def clip(model: Any, *args: Any, **more: Any) -> Any:
        run.freeze(_plain(trainer.optimizer))  # what is frozen is no part of the norm
        if beside := run.beside:
            model = nn.ModuleList([model, nn.ParameterList(beside.values())])
        return own(model, *args, **more)

    return clip


def _save_hook(trainer: Trainer, run: Run, own: Callable[..., Any]) -> Any:
    def save(output_dir: str) -> None:
        own(output_dir)
        content = tensor_bytes({n: v.cpu() for n, v in run.state_dict().items()})
        if trainer.args.should_save:
            write_atomically(Path(output_dir) / STATE_FILE, content)

    return save


def _load_hook(trainer: Trainer, run: Run, own: Callable[..., Any]) -> Any:
    def load(checkpoint: str | None) -> None:
        own(checkpoint)
        if checkpoint is not None:
            run.load_state_dict(read_state(Path(checkpoint)))

    return load


def read_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The state of a run in a checkpoint.

    Raises:
        PeftcError: PEFT692 if it has none.
    """
    path = checkpoint / STATE_FILE
    if not path.is_file():
        raise fail(WrongTrainingState(problem=f"`{checkpoint}` has no {STATE_FILE}"))
    found: dict[str, torch.Tensor] = load_file(path)
    return found


_HOOKS: dict[str, Callable[..., Any]] = {
    "compute_loss": _loss_hook,
    "create_optimizer": _optimizer_hook,
    "_clip_grad_norm": _clip_hook,
    "_save_optimizer_and_scheduler": _save_hook,
    "_load_optimizer_and_scheduler": _load_hook,
}
