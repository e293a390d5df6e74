"""How long `peftc.plan` takes on models of up to 70 billion weights, and its memory.

In: nothing; the configurations are written here and no weight is ever made.  Out: a
Markdown table on stdout, a row for each model; exit code 1 if a limit is passed.  Each
is planned in a process of its own.  Run it as `python benchmarks/bench_plan.py`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

DENSE = "lora(q, k, v, o, up, gate, down, r=16) + adapter(ffn, d=64)"
SPARSE = "lora(q, k, v, o, r=16) + adapter(ffn, d=64)"


@dataclass(frozen=True)
class Case:
    """A model to plan for; limits are of seconds and MiB, where there are any."""

    config: Callable[[], Any]
    spec: str = DENSE
    seconds: float = float("inf")
    mib: float = float("inf")


def llama(**sizes: int) -> Any:
    """A Llama of the third generation."""
    from transformers import LlamaConfig

    common = {"vocab_size": 128256, "num_key_value_heads": 8}
    facts: dict[str, Any] = {**common, "max_position_embeddings": 8192, **sizes}
    return LlamaConfig(architectures=["LlamaForCausalLM"], **facts)


def llama_8b() -> Any:
    """As Llama 3 8B."""
    return llama(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
    )


def llama_70b() -> Any:
    """As Llama 3 70B."""
    return llama(
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
    )


def mixtral() -> Any:
    """As Mixtral 8x7B, whose sizes are the defaults."""
    from transformers import MixtralConfig

    return MixtralConfig(architectures=["MixtralForCausalLM"])


CASES = {
    "Llama 8B": Case(llama_8b, seconds=20, mib=2048),
    "Llama 70B": Case(llama_70b, seconds=60),
    "Mixtral 8x7B": Case(mixtral, SPARSE),
}


def peak_mib() -> float:
    """The most memory this process has held so far, on Linux.

    `getrusage` would count what a parent process held when it started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(peak) / 1024


def plan(name: str) -> bool:
    """Plan once, print the row, and say whether the limits were kept."""
    import peftc

    case = CASES[name]
    config = case.config()
    before, start = peak_mib(), time.perf_counter()
    made = peftc.plan(case.spec, config)
    seconds, peak = time.perf_counter() - start, peak_mib()
    assert made.memory is not None
    gib = made.memory.peak / 2**30
    print(
        f"| {name} | {made.model.parameters:,} | {len(made.rewrites)} "
        f"| {made.trainable:,} | {gib:.0f} | {seconds:.1f} | {peak:.0f} "
        f"| {before:.0f} |"
    )
    return seconds < case.seconds and peak < case.mib


def main() -> None:
    """Plan for every model, or for the one that is named."""
    if len(sys.argv) > 1:
        sys.exit(not plan(sys.argv[1]))
    print(
        "| model | base | sites | trainable | step, GiB | seconds | peak MiB ", end=""
    )
    print("| of it by imports |\n|---|---|---|---|---|---|---|---|", flush=True)
    runs = [subprocess.run([sys.executable, __file__, name]) for name in CASES]
    sys.exit(any(run.returncode for run in runs))


if __name__ == "__main__":
    main()
