"""What a base in codes takes: bytes by the plan, of its tensors, and of the process.

In: nothing; a Llama of 111 million random weights is made here.  Out: a Markdown table
on stdout, a row for each way to store its linears; exit code 1 if tensors take other
bytes than the plan says.  Each is measured in a process of its own, on Linux.  Run it
as `python benchmarks/bench_storage.py`.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LORA = "lora(q, v, r=8)"
SPECS = {
    "as it is": LORA,
    "int8": f"quantize(linear, kind=int8) + {LORA}",
    "int4": f"quantize(linear, kind=int4) + {LORA}",
    "nf4": f"quantize(linear) + {LORA}",
    "nf4, double": f"quantize(linear, double=true) + {LORA}",
}
SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "vocab_size": 4096,
}
BATCH, TOKENS, STEPS = 2, 64, 2
MIB = 2**20


def resident(peak: bool = False) -> float:
    """MiB that this process has in memory, or had at most since `forget_peak`."""
    word = "VmHWM:" if peak else "VmRSS:"
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) for x in lines if x.startswith(word)) / 1024


def forget_peak() -> None:
    """Count the peak from here on."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def held(model: Any) -> int:
    """Bytes of the base's parameters and of codes, each storage once."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    own = (t for name, t in tensors if ".peftc." not in name or ".peftc.stored" in name)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage() for t in own}
    return sum(storage.nbytes() for storage in storages.values())


def measure(name: str, **sizes: int) -> dict[str, Any]:
    """Compile one spec in this process, train some steps, and count."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import peftc

    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = resident()
    facts: dict[str, Any] = {**SIZES, **sizes}
    model: Any = LlamaForCausalLM(LlamaConfig(**facts))
    peftc.compile(model, SPECS[name])
    forget_peak()
    after = resident()
    ids = torch.randint(2, 4096, (BATCH, TOKENS))
    optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    memory = model.peftc.plan.memory
    return {
        "planned": memory.base / MIB,
        "held": held(model) / MIB,
        "resident": after - before,
        "peak": resident(peak=True) - before,
        "step": min(times),
    }


def apart(name: str) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, name]
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MIB)}  # given back when freed
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    sizes = " | ".join(f"{found[n]:.1f}" for n in ("planned", "held"))
    rest = " | ".join(f"{found[n]:.0f}" for n in ("resident", "peak"))
    return f"| {name} | {sizes} | {rest} | {found['step']:.2f} |"


def main() -> int:
    """Print the table."""
    print("| linears | planned, MiB | tensors | process | peak of a step | seconds |")
    print("|---|---|---|---|---|---|")
    wrong = 0
    for name in SPECS:
        found = apart(name)
        wrong += abs(found["held"] - found["planned"]) > 0.01 * found["planned"]
        print(row(name, found), flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        sys.exit(0)
    sys.exit(main())
