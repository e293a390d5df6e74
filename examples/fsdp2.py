"""Tune a model whose frozen base is sharded over processes, layer by layer, by FSDP2.

In: a spec (`specs/lora.peft`, or the path given).  Out: of the first process, the held
out loss before and after, what each process holds of the base, and an adapter file that
a single process has loaded; an exit status that is not 0 if that gives another loss.

On one machine, with CPUs or graphics cards:

    torchrun --nproc-per-node 2 examples/fsdp2.py

On four machines of eight cards, the same command on each of them:

    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d \\
        --rdzv-id tune --rdzv-endpoint FIRST_MACHINE:29500 examples/fsdp2.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import peftc
from evaluation import held_out_loss, windows
from quickstart import SEED, STYLE, load_base

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEC = Path(__file__).parent / "specs" / "lora.peft"
STEPS, BATCH, LENGTH, RATE = 60, 16, 128, 1e-2
EVALUATED = 32
SAME_LOSS = 1e-3
"""In bfloat16 one process adds up in another order than many."""


def main(arguments: Sequence[str] = ()) -> int:
    """Compile, shard, tune, save, reload in one process; the exit status."""
    torch.set_num_threads(1)
    device = join()
    model = half_base()
    # First the methods, then the shards: each layer has an entry of its own.
    peftc.compile(model, arguments[0] if arguments else SPEC, entries="layers")
    model.to(device)
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)

    unseen = windows(STYLE, SEED, EVALUATED, LENGTH, held_out=True).to(device)
    before = held_out_loss(model, unseen)
    tune(model, device)
    after = held_out_loss(model, unseen)
    with tempfile.TemporaryDirectory() as scratch:
        folder = shared(scratch)
        model.peftc.save(folder)
        status = check(folder, unseen, after) if dist.get_rank() == 0 else 0
        dist.barrier()
    if dist.get_rank() == 0:
        report(model, before, after)
    dist.destroy_process_group()
    return status


def half_base() -> Any:
    """The base in bfloat16; what is added to it is in float32."""
    base: Any = load_base()
    return base.to(torch.bfloat16)


def join() -> torch.device:
    """Enter the group that torchrun made; this process's device."""
    if not torch.cuda.is_available():
        dist.init_process_group("gloo")
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return device


def tune(model: Any, device: torch.device) -> None:
    """Train what the spec added; each process takes its own part of every batch."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE)
    rows = windows(STYLE, SEED, STEPS * BATCH, LENGTH)
    model.train()
    for batch in rows.split(BATCH):
        ids = batch.chunk(dist.get_world_size())[dist.get_rank()].to(device)
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        optimizer.step()


def shared(folder: str) -> str:
    """The first process's folder, known to all: only it writes there."""
    told = [folder]
    dist.broadcast_object_list(told, src=0)
    return told[0]


def check(folder: str, unseen: torch.Tensor, expected: float) -> int:
    """Load the adapter on a whole model and compare; 1 if the loss is another."""
    whole = peftc.load(half_base(), folder).to(unseen.device)
    found = held_out_loss(whole, unseen)
    print(f"loaded by one process   {found:.4f} nats per byte")
    return 0 if abs(found - expected) <= SAME_LOSS else 1


def report(model: Any, before: float, after: float) -> None:
    """Both losses, and what this process holds of the base between steps."""
    frozen = [p for p in model.parameters() if not p.requires_grad]
    local = [p.to_local() if isinstance(p, DTensor) else p for p in frozen]
    held = sum(p.nbytes for p in local) / sum(p.numel() * p.itemsize for p in frozen)
    print(f"before and after tuning {before:.4f} {after:.4f} nats per byte")
    print(f"held of the base        {held:.1%} in each of {dist.get_world_size()}")
    print(f"graphs                  {model.peftc.captures.count}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
