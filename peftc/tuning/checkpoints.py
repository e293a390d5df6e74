"""Checkpoints that are whole or not there.

Trainer writes a checkpoint file by file into `checkpoint-N`.  Only when all of it,
whatever callbacks add included, is on the disk does the folder get the name `step-N`,
and only folders of that name are resumed from.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from peftc.files import put_folder

KEPT = 2
_WHOLE = re.compile(r"step-\d+")


def whole(folder: Path) -> list[Path]:
    """The whole checkpoints in a folder, the earliest first."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted((p for p in found if _WHOLE.fullmatch(p.name)), key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step at whose end a whole checkpoint was made."""
    return int(checkpoint.name.removeprefix("step-"))


def remove_parts(folder: Path) -> None:
    """Remove what an interrupted run has begun to write."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)


def seal(folder: Path, step: int) -> Path:
    """Give a finished checkpoint its name, and remove those before the last KEPT."""
    written, sealed = folder / f"checkpoint-{step}", folder / f"step-{step}"
    put_folder(written, sealed)
    for path in whole(folder)[:-KEPT]:
        shutil.rmtree(path)
    return sealed


class Seal(TrainerCallback):
    """Seals each checkpoint; the last callback, so that those before it have written.

    It is an error of ours if another comes after it.
    """

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Trainer and all other callbacks have written theirs."""
        seal(Path(args.output_dir), state.global_step)
