"""Every method learns: the example model, which has read plain English only, learns
pirate logs by each spec of `examples/specs`, as well as the table here says.

`docs/methods-compared.md` has what longer runs reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import peftc
from evaluation import held_out_loss, windows
from peftc.training import Run

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
LIBRARIES = {"row_scaled"}
SPECS = sorted(
    path for path in (EXAMPLES / "specs").glob("*.peft") if path.stem not in LIBRARIES
)
STYLE, STEPS, BATCH, LENGTH, EVALUATED = "pirate", 100, 4, 64, 40
CALIBRATION = 8


@dataclass(frozen=True)
class Learns:
    """At which rate, and by what the loss on unseen logs is divided at least."""

    factor: float
    rate: float = 1e-2


LEARNS: dict[str, Learns] = {
    "adalora": Learns(2.8),
    "adamix": Learns(2.3),
    "adapters": Learns(4.0),
    "bitfit": Learns(2.8, rate=0.1),
    "compacter": Learns(2.6),
    "diffprune": Learns(2.3),
    "distill": Learns(2.4),
    "far": Learns(6.9),
    "fishmask": Learns(3.2),
    "houlsby": Learns(5.3),
    "house": Learns(4.1),
    "ia3": Learns(2.6, rate=0.1),
    "intrinsic": Learns(2.6),
    "ipt": Learns(1.03, rate=0.1),
    "krona": Learns(2.4),
    "ladder": Learns(3.0),
    "lora": Learns(2.9),
    "loraplus": Learns(2.1),
    "mam": Learns(2.5),
    "own_method": Learns(3.1),
    "prefix": Learns(1.9, rate=0.1),
    "prompt": Learns(1.12, rate=0.1),
    "prune": Learns(3.1),
    "ptuning": Learns(1.6),
    "qlora": Learns(4.5),
    "quantize": Learns(3.0),
    "quickstart": Learns(4.0),
    "s4": Learns(3.1),
    "sparse": Learns(2.9),
    "structured": Learns(2.8),
    "ulmfit": Learns(2.0),
    "unipelt": Learns(3.3),
    "wrapped": Learns(3.1),
}


@pytest.fixture(scope="module")
def base_loss() -> float:
    return unseen_loss(load_base())


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_learns(path: Path, base_loss: float) -> None:
    said = LEARNS[path.stem]
    model = trained(path, said.rate)
    assert unseen_loss(model) < base_loss / said.factor


def load_base() -> Any:
    return AutoModelForCausalLM.from_pretrained(EXAMPLES / "tiny_llama")


def unseen_loss(model: Any) -> float:
    """Nats per byte on logs that no run has seen."""
    ids = windows(STYLE, 0, EVALUATED, LENGTH, held_out=True)
    return held_out_loss(model, ids)


def trained(path: Path, rate: float) -> Any:
    torch.manual_seed(0)
    model = peftc.compile(load_base(), path).train()
    ids = windows(STYLE, 0, STEPS * BATCH, LENGTH).split(BATCH)
    batches = [{"input_ids": part, "labels": part} for part in ids]
    run = Run(model, steps=STEPS, epoch=STEPS, calibration=batches[:CALIBRATION])
    optimizer = run.make_optimizer(rate)
    for batch in batches:
        run.loss(batch).backward()
        run.optimize(optimizer)
    run.finalize()
    return model
