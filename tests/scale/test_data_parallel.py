"""Two processes under DistributedDataParallel train what one process trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.scale.ranks import in_ranks
from tests.scale.work import SPEC, adapted, all_data_parallel, gradients, loss_of

if TYPE_CHECKING:
    from pathlib import Path


def alone(spec: str) -> Any:
    """The gradients of the whole batch in one process."""
    model = adapted(spec)
    loss_of(model).backward()
    return gradients(model)


CASES = [
    (SPEC, True, "eager"),
    (SPEC, False, "eager"),
    (f"{SPEC} + full(down)", True, "aot_eager"),
    (f"quantize(q, v, kind=nf4, block=32) + {SPEC}", True, "eager"),
]
"""A spec, what `optimize_ddp` is, and the backend."""


@pytest.mark.slow
def test_gradients_are_those_of_one_process(tmp_path: Path) -> None:
    expected = {spec: alone(spec) for spec, _, _ in CASES}
    for ranked in in_ranks(all_data_parallel, tmp_path, CASES):
        for (spec, _, _), (found, graphs) in zip(CASES, ranked, strict=True):
            assert graphs == 1
            torch.testing.assert_close(found, expected[spec], rtol=1e-5, atol=1e-7)
