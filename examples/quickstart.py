"""Fine-tune the example model with a spec, start to end, in about a minute.

In: a spec (`specs/quickstart.peft`, or the path given) and the base model, which has
read plain English only.  Out: a table of the base against the tuned model on pirate
logs that neither has seen, and an exit status that is not 0 if saving, loading or
merging changed anything.  Run it as `python examples/quickstart.py [SPEC]`.
"""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

import peftc
from evaluation import held_out_loss, sample, windows
from peftc.cli.summary import summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

HERE = Path(__file__).parent
BASE = HERE / "tiny_llama"
SPEC = HERE / "specs" / "quickstart.peft"
STYLE, SEED = "pirate", 0
STEPS, BATCH, LENGTH = 160, 16, 128
RATE = 1e-2
EVALUATED = 64
PROMPTS = ("Log o' the", "The wind blew")
SAME_LOSS = 1e-5
"""Merging rounds differently; a loss that is off by more is an error."""


def main(arguments: Sequence[str] = ()) -> int:
    """Compile, tune, compare, save, merge, reload; the exit status."""
    # A model this small gains little by more, and loses much where cores are shared.
    torch.set_num_threads(1)
    console = Console()
    spec = Path(arguments[0]) if arguments else SPEC
    model: Any = load_base()
    unseen = windows(STYLE, SEED, EVALUATED, LENGTH, held_out=True)
    before = held_out_loss(model, unseen), samples(model)

    model = peftc.compile(model, spec, seed=SEED)
    console.print(summary(model.peftc.plan))
    tune(model)
    after = held_out_loss(model, unseen), samples(model)
    show(console, before, after)
    return check(console, model, unseen, (before[0], after[0]))


def load_base() -> PreTrainedModel:
    """A fresh copy of the base model, in float32."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(BASE)
    return model


def samples(model: PreTrainedModel) -> list[str]:
    """What the model writes after each of the prompts."""
    model.eval()
    return [sample(model, prompt, seed=SEED) for prompt in PROMPTS]


def tune(model: PreTrainedModel) -> None:
    """Train what the spec added, with transformers' Trainer as it is."""
    ids = windows(STYLE, SEED, STEPS * BATCH, LENGTH)
    rows = [{"input_ids": row, "labels": row} for row in ids]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            output_dir=scratch,
            max_steps=STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            lr_scheduler_type="cosine",
            warmup_steps=STEPS // 10,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            seed=SEED,
            use_cpu=True,
        )
        Trainer(model, arguments, train_dataset=rows).train()


def show(
    console: Console, before: tuple[float, list[str]], after: tuple[float, list[str]]
) -> None:
    """Base against tuned: the loss, the perplexity, what they write."""
    table = Table("held-out pirate logs", "base", "tuned", title="before and after")
    losses = before[0], after[0]
    table.add_row("nats per byte", *(f"{loss:.3f}" for loss in losses))
    table.add_row("perplexity per byte", *(f"{math.exp(loss):.2f}" for loss in losses))
    for prompt, *written in zip(PROMPTS, before[1], after[1], strict=True):
        table.add_section()
        table.add_row(f"after '{prompt}'", *written)
    console.print(table, markup=False)


def check(
    console: Console, model: Any, unseen: torch.Tensor, losses: tuple[float, float]
) -> int:
    """Save, reload, switch off, merge: every loss must come out as it was."""
    base, tuned = losses
    with tempfile.TemporaryDirectory() as folder:
        model.peftc.save(folder)
        reloaded: Any = peftc.load(load_base(), folder)
    with model.peftc.disabled():
        found = {"switched off": (held_out_loss(model, unseen), base)}
    found["saved and loaded"] = held_out_loss(reloaded, unseen), tuned
    reasons = {r.merge.reason for r in model.peftc.plan.rewrites} - {""}
    if reasons:
        console.print("not merged:", *sorted(reasons), markup=False, soft_wrap=True)
    else:
        reloaded.peftc.merge()
        found["merged into the weights"] = held_out_loss(reloaded, unseen), tuned
        reloaded.peftc.unmerge()
        found["unmerged again"] = held_out_loss(reloaded, unseen), tuned
    return verdict(console, found)


def verdict(console: Console, found: dict[str, tuple[float, float]]) -> int:
    """Print each loss beside what it must be; 1 if one of them is not that."""
    table = Table("after tuning", "loss", "expected", "")
    wrong = [n for n, (loss, due) in found.items() if not abs(loss - due) <= SAME_LOSS]
    for name, (loss, due) in found.items():
        table.add_row(
            name, f"{loss:.6f}", f"{due:.6f}", "no" if name in wrong else "ok"
        )
    console.print(table)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
