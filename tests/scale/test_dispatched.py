"""A model that accelerate has dispatched is refused, before and after compiling."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model

from peftc.api import compile
from tests.numerics.runtime.tiny import assert_same, llama, logits, refused, snapshot
from tests.scale.work import SPEC, adapted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

CPU = torch.device("cpu")
PARTS = ("embed_tokens", "layers", "norm", "rotary_emb")


def by_map(model: Any, folder: Path) -> None:
    places = {**{f"model.{part}": "cpu" for part in PARTS}, "lm_head": "cpu"}
    dispatch_model(model, places, main_device="cpu", force_hooks=True)


def on_disk(model: Any, folder: Path) -> None:
    disk_offload(model, folder, execution_device=CPU)


def in_memory(model: Any, folder: Path) -> None:
    cpu_offload(model, execution_device=CPU)


@pytest.mark.parametrize("dispatch", [by_map, on_disk, in_memory])
def test_a_dispatched_model_is_refused(
    dispatch: Callable[[Any, Path], None], tmp_path: Path
) -> None:
    model = llama(layers=1)
    dispatch(model, tmp_path)
    before = snapshot(model)
    with refused("PEFT609"):
        compile(model, SPEC)
    before.pop("state"), (after := snapshot(model)).pop("state")
    assert_same({**before, "state": {}}, {**after, "state": {}})


@pytest.mark.parametrize("entries", ["model", "layers"])
def test_a_model_that_is_dispatched_later_is_refused(
    entries: str, tmp_path: Path
) -> None:
    model = adapted(layers=1, entries=entries)
    logits(model)
    by_map(model, tmp_path)
    with refused("PEFT609"):
        logits(model)
