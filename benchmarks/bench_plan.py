"""How long `peftc.plan` takes on a model of 8 billion weights, and how much memory.

In: nothing; the configuration is written here and no weight is ever made.  Out: a row
of a Markdown table on stdout.  Run it as `python benchmarks/bench_plan.py`.
"""

from __future__ import annotations

import time
from pathlib import Path

from transformers import LlamaConfig

import peftc

SPEC = "lora(q, k, v, o, up, gate, down, r=16) + adapter(ffn, d=64)"
CONFIG = LlamaConfig(
    architectures=["LlamaForCausalLM"],
    vocab_size=128256,
    hidden_size=4096,
    intermediate_size=14336,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
)


def peak_mib() -> float:
    """The most memory this process has held so far, on Linux.

    `getrusage` would count what a parent process held when it started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


def main() -> None:
    """Plan once and print what it took."""
    before = peak_mib()
    start = time.perf_counter()
    plan = peftc.plan(SPEC, CONFIG)
    seconds = time.perf_counter() - start
    print("| base | sites | trainable | seconds | peak MiB | of it by imports |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {plan.model.parameters:,} | {len(plan.rewrites)} | {plan.trainable:,} "
        f"| {seconds:.1f} | {peak_mib():.0f} | {before:.0f} |"
    )


if __name__ == "__main__":
    main()
