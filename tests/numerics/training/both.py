"""The same training by a loop and by a Trainer, for specs with controls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers as hf

import peftc
from peftc.training import Run, attach
from tests.numerics.runtime.tiny import llama
from tests.numerics.training.test_run import BATCH, InOrder, added, batches, samples

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

RATE, EPOCHS = 0.05, 1


def descent(run: Run) -> torch.optim.Optimizer:
    """Plain descent: it does not blow up the last bits of gradients, as Adam does."""
    return torch.optim.SGD(run.parameter_groups(lr=RATE))


def looped(
    spec: str,
    each: Callable[[Run, Any], None] = lambda run, optimizer: None,
    make: Callable[[Run], Any] | None = None,
    **options: Any,
) -> Any:
    """A model after a loop; `each` sees run and optimizer after every step."""
    model = peftc.compile(options.pop("model", None) or llama(layers=2), spec).train()
    data = batches()
    run = Run(model, steps=len(data), **options)
    optimizer = make(run) if make else descent(run)
    for batch in data:
        run.loss(batch).backward()
        run.optimize(optimizer)
        each(run, optimizer)
    run.finalize()
    return model


def by_trainer(
    spec: str,
    folder: Path,
    teachers: Mapping[str, nn.Module] | None = None,
    **more: Any,
) -> Any:
    """A model after a Trainer's run on the same data."""
    said: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "num_train_epochs": EPOCHS,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "optim": "sgd",
        "max_grad_norm": 0,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    arguments = hf.TrainingArguments(**{**said, **more})
    model = peftc.compile(llama(layers=2), spec)
    trainer = InOrder(model, arguments, train_dataset=samples())
    attach(trainer, teachers=teachers)
    trainer.train()
    return model


def assert_equal(one: Any, other: Any) -> None:
    """The added tensors of two models are the same."""
    pairs = zip(added(one).values(), added(other).values(), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
