"""A training script as users have one: for `torchrun` and `accelerate launch`.

Its arguments are a folder and the size of the whole batch.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainingArguments

from tests.numerics.runtime.tiny import tokens
from tests.scale.work import adapted

if TYPE_CHECKING:
    from transformers import TrainerState

STEPS = 3


def train(folder: str, batch: int) -> TrainerState:
    """Train a compiled model with Trainer; it and a checkpoint are in the folder."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = TrainingArguments(
        folder,
        max_steps=STEPS,
        per_device_train_batch_size=batch // processes,
        save_steps=STEPS,
        logging_steps=1,
        learning_rate=0.05,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        seed=1,
    )
    rows: list[dict[str, Any]] = [
        {"input_ids": row, "labels": row} for row in tokens(16, 8)
    ]
    trainer = Trainer(adapted(), arguments, train_dataset=rows)
    trainer.train()
    trainer.save_model()
    return trainer.state


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]))
