"""Two processes under DistributedDataParallel train what one process trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.scale.ranks import in_ranks
from tests.scale.work import SPEC, adapted, data_parallel, gradients, loss_of

if TYPE_CHECKING:
    from pathlib import Path


def alone(spec: str) -> Any:
    """The gradients of the whole batch in one process."""
    model = adapted(spec)
    loss_of(model).backward()
    return gradients(model)


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize(
    ("spec", "backend"), [(SPEC, "eager"), (f"{SPEC} + full(down)", "aot_eager")]
)
@pytest.mark.slow
def test_gradients_are_those_of_one_process(
    spec: str, backend: str, optimize: bool, tmp_path: Path
) -> None:
    expected = alone(spec)
    for found, graphs in in_ranks(data_parallel, tmp_path, spec, optimize, backend):
        assert graphs == 1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
