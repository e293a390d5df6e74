"""Several processes that train together, on one machine, for tests.

In: a function of a module (what every process does), and its arguments.  Out: what each
process returned, by rank.  The processes talk by gloo over a file, so no port is taken;
they are made by a server that has imported torch once, in clean forks.  A process that
fails or hangs fails the test, and none outlives it.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
import traceback
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed as dist

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from pathlib import Path

LIMIT = 180
"""Seconds after which processes that wait for each other are stopped."""


def in_ranks(
    work: Callable[..., Any], folder: Path, *args: Any, count: int = 2
) -> list[Any]:
    """Call `work(*args)` in `count` processes of one group; the results by rank."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.scale.preloaded"])
    # Of one name each: a group must not find what another left in its file.
    store = folder / f"store-{time.monotonic_ns()}"
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    processes = [
        context.Process(target=_rank, args=(work, args, rank, count, str(store), end))
        for rank, (_, end) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    try:
        return _results([receive for receive, _ in pipes])
    finally:
        for process in processes:
            process.join(5)
            process.kill()
            process.join()


def _results(pipes: list[Connection]) -> list[Any]:
    end, results = time.monotonic() + LIMIT, []
    for rank, pipe in enumerate(pipes):
        assert pipe.poll(max(0, end - time.monotonic())), f"rank {rank} hangs"
        failure, data = pipe.recv()
        assert not failure, f"rank {rank}:\n{failure}"
        results.append(torch.load(io.BytesIO(data), weights_only=False))
    return results


def _rank(
    work: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    count: int,
    store: str,
    pipe: Connection,
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank)}
    failure, data = "", io.BytesIO()
    try:
        place = f"file://{store}"
        dist.init_process_group("gloo", init_method=place, rank=rank, world_size=count)
        torch.save(work(*args), data)
        dist.destroy_process_group()
    except BaseException:
        failure = traceback.format_exc()
    pipe.send((failure, data.getvalue()))
