"""One training run on transformers' Trainer.

In: a compiled model, examples, settings, and a folder if there are to be checkpoints.
Out: `Fitted`, the losses and what the run took.  A run that goes on from a checkpoint
ends with the same bits as one that was never interrupted.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from peftc.training import attach
from peftc.tuning.checkpoints import Seal, remove_parts, step_of, whole
from peftc.tuning.examples import Collate
from peftc.tuning.extras import require
from peftc.tuning.interruption import Interrupted, Interruption
from peftc.tuning.progress import Show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftc.tuning.examples import Example, Reading
    from peftc.tuning.settings import Settings

TOOK = "took.json"
"""In a checkpoint: what the run took so far, over all its parts."""


@dataclass(frozen=True)
class Fitted:
    """The loss of each step, the seconds and tokens of all of them together, and the
    seconds of a step in the middle, which capturing the model does not lengthen."""

    losses: tuple[float, ...]
    seconds: float
    tokens: int
    step_seconds: float


@dataclass
class Clock(TrainerCallback):
    """What the run took, parts before an interruption included."""

    collate: Collate
    seconds: float = 0.0
    tokens: int = 0
    steps: list[float] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)
    _step: float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start."""
        self._since = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start a step."""
        self._step = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End a step."""
        self.steps.append(time.perf_counter() - self._step)

    def read(self, checkpoint: Path) -> None:
        """Go on from what a checkpoint says."""
        said = json.loads((checkpoint / TOOK).read_bytes())
        self.seconds, self.tokens = said["seconds"], said["tokens"]
        self.steps = said["steps"]

    def took(self) -> dict[str, Any]:
        """Until now."""
        seconds = self.seconds + time.perf_counter() - self._since
        tokens = self.tokens + self.collate.tokens
        return {"seconds": seconds, "tokens": tokens, "steps": self.steps}

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add what it took to the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / TOOK).write_text(json.dumps(self.took()))


def fit(
    model: Any,
    data: Sequence[Example],
    reading: Reading,
    settings: Settings,
    *,
    folder: Path | None = None,
    label: str = "",
) -> Fitted:
    """Train what was added to a model.

    Args:
        folder: where checkpoints are, and go; a run goes on from the last one there.
        label: what progress is told under.

    Raises:
        Interrupted: after a signal; the last checkpoint is whole.
        PeftcError: PEFT671 without accelerate, PEFT688 if the loss is not finite.
    """
    require("accelerate", "training")
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        return _fit(model, data, reading, (settings, place, folder is not None, label))


def _fit(
    model: Any,
    data: Sequence[Example],
    reading: Reading,
    how: tuple[Settings, Path, bool, str],
) -> Fitted:
    settings, folder, keep, label = how
    collate = Collate(reading.task, reading.codec.pad)
    arguments = _arguments(settings, len(data), folder, keep)
    clock, stop = Clock(collate), Interruption()
    trainer = Trainer(model, arguments, data_collator=collate, train_dataset=data)
    trainer.remove_callback(PrinterCallback)
    for callback in (Show(collate, label), clock, stop):
        trainer.add_callback(callback)
    attach(trainer)
    if keep:
        remove_parts(folder)
        trainer.add_callback(Seal())
    last = _last(folder, arguments.max_steps, clock)
    with stop.watching():
        trainer.train(resume_from_checkpoint=last)
    if stop.came:
        raise Interrupted(_how_to_go_on(trainer.state, folder if keep else None))
    took = clock.took()
    logs = (entry for entry in trainer.state.log_history if "loss" in entry)
    losses = tuple(float(entry["loss"]) for entry in logs)
    return Fitted(losses, took["seconds"], took["tokens"], median(clock.steps))


def _last(folder: Path, steps: int, clock: Clock) -> str | None:
    """The checkpoint to go on from: not that of the last step, after which Trainer
    would train one more; what is behind the one before is done again."""
    found = [path for path in whole(folder) if step_of(path) < steps]
    if not found:
        return None
    clock.read(found[-1])
    return str(found[-1])


def _how_to_go_on(state: Any, folder: Path | None) -> str:
    where = f"interrupted at step {state.global_step} of {state.max_steps}"
    kept = whole(folder) if folder else []
    return f"{where}; `--resume` goes on from {kept[-1]}" if kept else where


def _arguments(
    settings: Settings, samples: int, folder: Path, keep: bool
) -> TrainingArguments:
    steps = settings.total_steps(samples)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * steps),
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps" if keep else "no",
        save_steps=settings.between_saves(steps),
        report_to="none",
        disable_tqdm=True,
        seed=settings.seed,
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
    )
