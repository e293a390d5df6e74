"""Intrinsic prompt tuning in its three phases, in about two minutes.

In: three styles of text that the base model has not read.  Out: prompts for the first
two, a space of prompts learnt over them, and the third style tuned by five numbers in
that space, beside five numbers of a random one.  Run it as
`python examples/intrinsic_prompts.py [FOLDER]`; adapters are kept in the folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM

import peftc
from evaluation import held_out_loss, windows
from peftc.training import Run

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = Path(__file__).parent / "tiny_llama"
SOURCES, TARGET = ("pirate", "recipe"), "capitals"
ROWS, CODE, WIDTH = 8, 5, 64
STEPS, BATCH, LENGTH, EVALUATED = 150, 8, 64, 32
SIZES = f"p={ROWS}, d={CODE}, m={WIDTH}"


def main(arguments: Sequence[str] = ()) -> int:
    """All phases, and a table; 1 if tuning a code did not help."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(arguments[0] if arguments else scratch)
        prompts = [prompt(style, folder) for style in SOURCES]
        decoder = space(prompts, folder)
        found = {
            "the base": loss_of(load_base(), TARGET),
            f"{CODE} numbers, drawn decoder": code("", folder / "drawn"),
            f"{CODE} numbers, learnt decoder": code(str(decoder), folder / TARGET),
        }
    table = Table(f"held-out {TARGET}", "nats per byte")
    for name, loss in found.items():
        table.add_row(name, f"{loss:.3f}")
    Console().print(table)
    base, *tuned = found.values()
    return 0 if max(tuned) < base else 1


def prompt(style: str, folder: Path) -> Path:
    """The first phase: a prompt for one source; where it is kept."""
    model = peftc.compile(load_base(), f"prompt(p={ROWS}, init=vocab)")
    train(model, [style], rate=0.1)
    return saved(model, folder / style)


def space(prompts: Sequence[Path], folder: Path) -> Path:
    """The second phase: an encoder and a decoder for all sources together."""
    sources = ", ".join(map(str, prompts))
    spec = f'ipt_space(sources="{sources}", tasks={len(prompts)}, {SIZES})'
    model = peftc.compile(load_base(), spec)
    train(model, SOURCES, rate=3e-3)
    return saved(model, folder / "space")


def code(decoder: str, folder: Path) -> float:
    """The third phase: the code of a new task; the loss it reaches."""
    model = peftc.compile(load_base(), f'ipt({SIZES}, decoder="{decoder}")')
    train(model, [TARGET], rate=0.1)
    saved(model, folder)
    return loss_of(model, TARGET)


def train(model: Any, styles: Sequence[str], rate: float) -> None:
    """Some steps over each style in turn; batches say which one they are of."""
    texts = [batches(style) for style in styles]
    run = Run(model.train(), steps=STEPS * len(styles))
    optimizer = torch.optim.AdamW(run.parameter_groups(lr=rate))
    for step in range(STEPS):
        for task, text in enumerate(texts):
            about = {"task": task} if len(styles) > 1 else {}
            run.loss(
                {"input_ids": text[step], "labels": text[step], **about}
            ).backward()
            run.optimize(optimizer)
    run.finalize()


def batches(style: str) -> torch.Tensor:
    """[steps, batch, length] ids."""
    return text(style, STEPS * BATCH).view(STEPS, BATCH, LENGTH)


def loss_of(model: Any, style: str) -> float:
    """Nats per byte of text that nothing was trained on."""
    return held_out_loss(model, text(style, EVALUATED, held_out=True))


def text(style: str, count: int, *, held_out: bool = False) -> torch.Tensor:
    """[count, length] ids; capitals are those of the text that the base has read."""
    if style != TARGET:
        return windows(style, 0, count, LENGTH, held_out=held_out)
    ids = windows("plain", 0, count, LENGTH, held_out=held_out)
    small = (ids >= ord("a")) & (ids <= ord("z"))
    return torch.where(small, ids - ord("a") + ord("A"), ids)


def load_base() -> Any:
    """A fresh copy of the base model, in float32."""
    return AutoModelForCausalLM.from_pretrained(BASE)


def saved(model: Any, folder: Path) -> Path:
    """Keep what was trained."""
    model.peftc.save(folder)
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
