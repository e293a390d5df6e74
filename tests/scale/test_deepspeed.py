"""DeepSpeed's ZeRO: stages 1 and 2 train a compiled model, stage 3 is refused."""

from __future__ import annotations

import importlib.util
from itertools import chain
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from peftc.api import compile
from tests.numerics.runtime.tiny import assert_same, llama, refused, snapshot
from tests.scale.ranks import in_ranks
from tests.scale.work import SPEC, adapted, steps, values, zero, zero_3

if TYPE_CHECKING:
    from pathlib import Path

with_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="needs the extra `deepspeed`"
)


@pytest.mark.slow
@with_deepspeed
def test_zero_1_and_2_train_what_one_process_does(tmp_path: Path) -> None:
    model = adapted()
    steps(model, 2)
    for found, graphs in chain.from_iterable(in_ranks(zero, tmp_path, (1, 2))):
        assert graphs == 1
        torch.testing.assert_close(found, values(model), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@with_deepspeed
def test_zero_3_is_refused_when_it_runs(tmp_path: Path) -> None:
    in_ranks(zero_3, tmp_path)


def test_zero_3_is_refused() -> None:
    """Partitioned parameters are known by what DeepSpeed writes on them."""
    model = llama(layers=1)
    parameter: nn.Parameter = model.model.norm.weight
    parameter.ds_id, parameter.ds_status = 3, "available"  # type: ignore[attr-defined]
    before = snapshot(model)
    with refused("PEFT608"):
        compile(model, SPEC)
    assert_same(snapshot(model), before)
