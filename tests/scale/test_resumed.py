"""What several processes save, one resumes, and the other way round."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import torch

from peftc.api import load
from tests.numerics.runtime.tiny import llama
from tests.scale.ranks import in_ranks
from tests.scale.work import (
    compile_late,
    resume,
    save_as_trainer_does,
    started,
    steps,
    train_and_save,
    values,
)

if TYPE_CHECKING:
    from pathlib import Path


def assert_close(found: object, expected: object) -> None:
    """As close as two orders of one sum leave them after four steps of AdamW."""
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_save_and_one_goes_on(tmp_path: Path) -> None:
    model, folder = started("layers"), str(tmp_path / "two")
    optimizer = steps(model, 2)
    halfway = values(model)
    steps(model, 2, optimizer)
    for found in in_ranks(train_and_save, tmp_path, folder, "layers"):
        assert_close(found, halfway)
    assert sorted(os.listdir(folder)) == ["adapter.safetensors", "optimizer"]
    assert_close(values(load(llama(), folder)), halfway)
    assert_close(resume(folder, "layers"), values(model))


@pytest.mark.slow
def test_one_process_saves_and_two_go_on(tmp_path: Path) -> None:
    model, folder = started("model"), str(tmp_path / "one")
    train_and_save(folder, "model")
    steps(model, 4)
    for found in in_ranks(resume, tmp_path, folder, "model"):
        assert_close(found, values(model))


@pytest.mark.slow
def test_a_state_that_trainer_gathered_is_saved_by_one_process(tmp_path: Path) -> None:
    first, other = in_ranks(save_as_trainer_does, tmp_path, str(tmp_path))
    torch.testing.assert_close(first, other, rtol=0, atol=0)
    for folder in ("given", "asked"):
        model = load(llama(), tmp_path / folder)
        torch.testing.assert_close(values(model), first, rtol=0, atol=0)


@pytest.mark.slow
def test_methods_come_before_shards(tmp_path: Path) -> None:
    in_ranks(compile_late, tmp_path)
