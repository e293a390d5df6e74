"""What all tests of the runtime need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import transformers

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _one_thread_and_fresh_caches() -> Iterator[None]:
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    torch._dynamo.reset()
    transformers.logging.set_verbosity_error()
    yield
    torch.set_num_threads(count)
