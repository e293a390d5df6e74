"""FSDP2 shards a compiled model layer by layer; each process holds half of the base.

As a whole: `test_resumed.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from peftc.api import compile
from tests.scale.ranks import in_ranks
from tests.scale.work import SPEC, base_model, mean_gradients, shake, sharded

if TYPE_CHECKING:
    from pathlib import Path

HALF, FULL = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    ("spec", "base", "checkpointing"),
    [(SPEC, FULL, False), (f"{SPEC} + norm_tuning(norm)", HALF, True)],
)
@pytest.mark.slow
def test_gradients_are_those_of_one_process(
    spec: str, base: torch.dtype, checkpointing: bool, tmp_path: Path
) -> None:
    model = base_model(base)
    count = sum(p.numel() for p in model.parameters())
    compile(model, spec, entries="layers")
    shake(model)
    expected = mean_gradients(model)
    ranks = in_ranks(sharded, tmp_path, spec, base, checkpointing)
    for found, graphs, held in ranks:
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
        assert graphs == model.peftc.captures.count
        assert held == count / 2
