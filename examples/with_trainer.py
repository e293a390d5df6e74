"""Train with transformers' Trainer as it is: checkpoints, the best one, going on.

In: the example model with a spec (`specs/lora.peft`) in it.  Out: a table of losses,
and an exit status that is not 0 if a run that went on from a checkpoint differs in any
bit from one that was never interrupted, or a checkpoint holds more than the adapter.
Run it as `python examples/with_trainer.py`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

import peftc
from evaluation import windows

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
BASE = HERE / "tiny_llama"
SPEC = HERE / "specs" / "lora.peft"
STEPS, BATCH, LENGTH, EVALUATED = 40, 8, 64, 32


def main(_: Sequence[str] = ()) -> int:
    """Train whole and in two parts; the exit status."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        whole = train(compiled(), Path(folder) / "whole")
        best = Path(str(whole.state.best_model_checkpoint))
        first = min(best.parent.glob("checkpoint-*"), key=step_of)
        parts = train(compiled(), Path(folder) / "parts", resume=first)
        weights = sum(file.stat().st_size for file in best.glob("*.safetensors"))
    show(whole)
    same = all(
        torch.equal(one, two)
        for one, two in zip(trained(whole.model), trained(parts.model), strict=True)
    )
    small = weights < (BASE / "model.safetensors").stat().st_size
    console = Console()
    console.print(f"going on from {first.name} ends with the same bits: {same}")
    console.print(f"the best is {best.name}, with {weights / 1024:.0f} KiB of weights")
    return 0 if same and small else 1


def compiled() -> Any:
    """The base with the spec's methods in it."""
    return peftc.compile(AutoModelForCausalLM.from_pretrained(BASE), SPEC)


def trained(model: Any) -> list[torch.nn.Parameter]:
    """What training changes."""
    return [p for p in model.parameters() if p.requires_grad]


def step_of(checkpoint: Path) -> int:
    """The step at whose end a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def train(model: Any, folder: Path, resume: Path | None = None) -> Trainer:
    """Train with accumulated batches, measuring and saving on the way."""
    ids = windows("pirate", 0, STEPS * BATCH, LENGTH)
    held_out = windows("pirate", 0, EVALUATED, LENGTH, held_out=True)
    data, unseen = (
        [{"input_ids": row, "labels": row} for row in part] for part in (ids, held_out)
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=BATCH // 2,
        gradient_accumulation_steps=2,
        learning_rate=1e-2,
        eval_strategy="steps",
        eval_steps=STEPS // 4,
        save_steps=STEPS // 4,
        load_best_model_at_end=resume is None,
        metric_for_best_model="loss",
        logging_steps=STEPS // 4,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model, arguments, train_dataset=data, eval_dataset=unseen)
    trainer.train(resume_from_checkpoint=None if resume is None else str(resume))
    return trainer


def show(trainer: Trainer) -> None:
    """The held-out loss as it went."""
    table = Table("step", "held-out loss", title="nats per byte of pirate logs")
    for entry in trainer.state.log_history:
        if "eval_loss" in entry:
            table.add_row(str(entry["step"]), f"{entry['eval_loss']:.3f}")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
