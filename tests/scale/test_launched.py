"""`torchrun` and `accelerate launch` run a Trainer on a compiled model as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerState

from peftc.runtime.state import FILE
from tests.scale.launched import STEPS, train

ROOT = Path(__file__).parents[2]
TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
ACCELERATE = (
    *("accelerate.commands.launch", "--cpu", "--num_processes", "2"),
    *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    *("--main_process_port", "0", "-m"),
)


def run(command: tuple[str, ...]) -> str:
    """Run a module with a launcher; what it prints."""
    paths = os.pathsep.join((str(ROOT), str(ROOT / "examples")))
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    """What one process trains, and its losses."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, losses_of(train(str(folder), batch=4))


@pytest.mark.slow
def test_the_example_of_sharding_runs() -> None:
    said = run((*TORCHRUN, "tests.scale.short_example"))
    assert "held of the base        50.0% in each of 2" in said


def losses_of(state: TrainerState) -> list[float]:
    return [one["loss"] for one in state.log_history if "loss" in one]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=lambda one: one[0])
def test_two_processes_train_what_one_does(
    launcher: tuple[str, ...], alone: tuple[Path, list[float]], tmp_path: Path
) -> None:
    launched = tmp_path / "launched"
    run((*launcher, "tests.scale.launched", str(launched), "4"))
    state = launched / f"checkpoint-{STEPS}" / "trainer_state.json"
    found = losses_of(TrainerState.load_from_json(str(state)))
    assert found == pytest.approx(alone[1])
    for folder in (launched, launched / f"checkpoint-{STEPS}"):
        kept = alone[0] / folder.relative_to(launched)
        torch.testing.assert_close(load_file(folder / FILE), load_file(kept / FILE))
        assert "model.safetensors" not in os.listdir(folder)
