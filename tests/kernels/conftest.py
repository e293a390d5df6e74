"""A process in which Triton interprets.

Triton decides when it is first imported, and torch imports it: so it is not this one.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

collect_ignore_glob = [] if importlib.util.find_spec("triton") else ["test_*.py"]
"""There is no Triton but for Linux."""

Interpreted: TypeAlias = "Callable[..., object]"
"""Calls a function of a module in that process, and gives what it gives."""


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreted]:
    """A function that calls another there; what one file's tests set, no other sees."""
    with (
        pytest.MonkeyPatch.context() as patch,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
    ):
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setenv("PEFTC_CACHE", str(tmp_path_factory.mktemp("kernels")))
        pool.submit(os.getpid).result()  # the process starts now, with these variables
        patch.undo()
        yield lambda function, *args: pool.submit(function, *args).result()
