"""What checkpointed blocks save and cost: bytes kept for the backward, and time.

In: nothing; a Llama of random weights is made here.  Out: a Markdown table on stdout, a
row for each backend and interval of blocks, and for Transformers' own switch; exit
code 1 if gradients are others than without.  Times are of one thread of the processor,
the least of several steps.  Run it as `python benchmarks/bench_checkpoint.py`; with
`--backends eager` it takes a minute, with Inductor several.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import peftc

if TYPE_CHECKING:
    from collections.abc import Sequence

SPEC = "lora(q, k, v, o, up, gate, down, r=8)"
SIZES = {
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 512,
}
BATCH, TOKENS, STEPS = 4, 256, 5
SWITCH = "switch"
INTERVALS: tuple[int | str, ...] = (0, 2, 1, SWITCH)
BACKENDS = ("eager", "aot_eager", "inductor")
CLOSE = 1e-6
"""How much a gradient may differ, beside the largest of its tensor."""
MIB = 2**20


def compiled(backend: str, interval: int | str, **sizes: int) -> Any:
    """The model with a spec in it whose parameters are not zero."""
    torch.manual_seed(0)
    facts: dict[str, Any] = {**SIZES, **sizes}
    model: Any = LlamaForCausalLM(LlamaConfig(**facts)).train()
    every = interval if isinstance(interval, int) else 0
    peftc.compile(model, SPEC, backend=backend, checkpoint_every=every)
    if interval == SWITCH:
        model.gradient_checkpointing_enable()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.02, generator=generator)
    return model


def kept(model: Any, ids: torch.Tensor) -> int:
    """Bytes that autograd keeps beside parameters, each storage once."""
    fixed = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}
    held: list[torch.Tensor] = []  # so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in fixed:
            found[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(input_ids=ids, labels=ids, use_cache=False)
    return sum(found.values())


def step(model: Any, ids: torch.Tensor) -> float:
    """Seconds of the processor for a forward and a backward."""
    model.zero_grad()
    start = time.process_time()
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return time.process_time() - start


def measure(backend: str, interval: int | str, **sizes: int) -> dict[str, Any]:
    """One row: what is kept, how long a step takes, and the gradients."""
    model = compiled(backend, interval, **sizes)
    ids = torch.randint(2, 500, (BATCH, TOKENS), generator=torch.Generator())
    step(model, ids)
    seconds = min(step(model, ids) for _ in range(STEPS))
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return {"kept": kept(model, ids), "seconds": seconds, "gradients": gradients}


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of gradients, each beside the largest of its tensor."""
    pairs = zip(one["gradients"], other["gradients"], strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def rows(backend: str, **sizes: int) -> bool:
    """Print the rows of a backend; whether all gradients are those without."""
    first = measure(backend, INTERVALS[0], **sizes)
    right = True
    for interval in INTERVALS:
        found = first if interval == 0 else measure(backend, interval, **sizes)
        off = difference(found, first)
        right &= off <= CLOSE
        name = {0: "none", SWITCH: "Transformers' switch"}.get(interval)
        bytes_, ratio = found["kept"] / MIB, found["seconds"] / first["seconds"]
        print(
            f"| {backend} | {name or f'every {interval}'} | {bytes_:.1f} "
            f"| {1000 * found['seconds']:.0f} | {ratio:.2f} | {off:.0e} |",
            flush=True,
        )
    return right


def main(arguments: Sequence[str] = ()) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="*", default=BACKENDS, choices=BACKENDS)
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(
        "| backend | checkpointed | kept, MiB | step, ms | times none | gradients off |"
    )
    print("|---|---|---|---|---|---|")
    right = [rows(backend) for backend in chosen.backends]
    return int(not all(right))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
