"""What methods cost: the base, Hugging Face PEFT and peftc, side by side.

In: the example model.  Out: a Markdown table for a low-rank update and one for prefixes
on stdout, in milliseconds on one thread:
the best of several runs, in which the models take turns, after one that is not counted
(it compiles).  The two adapted models hold the same weights, and their logits are
compared before anything is timed.  Run it as `python benchmarks/bench_overhead.py`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import torch
from transformers import AutoModelForCausalLM

import peftc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Task = Callable[[], Any]

BASE = Path(__file__).parents[1] / "examples" / "tiny_llama"
RANK, ROWS = 8, 30
BATCH, TOKENS = 8, 128
NEW_TOKENS = 64
RUNS = 20
AGREE = 1e-4
"""Largest difference between logits of the two adapted models."""


def main() -> None:
    """Build the models of each method, check that two of them agree, time them."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    ids = torch.randint(0, 256, (BATCH, TOKENS))
    theirs = low_rank_by_peft()
    compare(f"lora(q, v, r={RANK})", theirs, low_rank_by_peftc(theirs), ids)
    theirs = prefix_by_peft()
    compare(f"prefix(k, v, p={ROWS})", theirs, prefix_by_peftc(theirs), ids)


def compare(title: str, theirs: Any, ours: Any, ids: torch.Tensor) -> None:
    """Print the table of one method."""
    models = {
        "base, all weights trained": load(),
        "Hugging Face PEFT": theirs,
        "peftc": ours,
    }
    check(models, ids)
    best = best_ms([tasks(model, ids) for model in models.values()])
    print(f"\n`{title}`\n")
    print("| model | trainable | forward | forward + backward | generate |")
    print("|---|---|---|---|---|")
    for (name, model), times in zip(models.items(), best, strict=True):
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        print(f"| {name} | {trainable:,} | {' | '.join(f'{t:.1f}' for t in times)} |")


def load() -> Any:
    """The base model in evaluation mode."""
    return AutoModelForCausalLM.from_pretrained(BASE).eval()


def low_rank_by_peft() -> Any:
    """Hugging Face PEFT's low-rank update, with weights that are not the identity."""
    config = peft.LoraConfig(
        r=RANK,
        lora_alpha=16,
        target_modules=["q_proj", "v_proj"],
        init_lora_weights=False,
    )
    return peft.get_peft_model(load(), config).eval()


def low_rank_by_peftc(other: Any) -> Any:
    """peftc's low-rank update with the weights of `other`."""
    model = peftc.compile(load(), f"lora(q, v, r={RANK}, alpha=16)")
    theirs = dict(other.named_parameters())
    for name, ours in model.named_parameters():
        if ".peftc." in name:
            owner, factor = name.split(".peftc.")[0], name[-1]
            source = f"base_model.model.{owner}.lora_{factor}.default.weight"
            ours.data.copy_(theirs[source])
    return model


def prefix_by_peft() -> Any:
    """Hugging Face PEFT's prefixes."""
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=ROWS)
    return peft.get_peft_model(load(), config).eval()


def prefix_by_peftc(other: Any) -> Any:
    """peftc's prefixes with the rows of `other`: [p, layers of keys and values]."""
    model = peftc.compile(load(), f"prefix(k, v, p={ROWS})")
    table = other.prompt_encoder["default"].embedding.weight
    ours = [p for name, p in model.named_parameters() if ".peftc." in name]
    for row, part in zip(ours, table.chunk(len(ours), dim=1), strict=True):
        row.data.copy_(part)
    return model


def check(models: dict[str, Any], ids: torch.Tensor) -> None:
    """Stop if the two adapted models do not compute the same."""
    with torch.no_grad():
        first, second = (
            models[n](input_ids=ids).logits for n in ("Hugging Face PEFT", "peftc")
        )
    worst = (first - second).abs().max().item()
    if worst > AGREE:
        raise SystemExit(f"logits differ by {worst}")


def tasks(model: Any, ids: torch.Tensor) -> tuple[Task, ...]:
    """What is timed, each as a function of nothing."""
    prompt = ids[:1, :16]

    def forward() -> Any:
        with torch.no_grad():
            return model(input_ids=ids)

    def step() -> None:
        model(input_ids=ids, labels=ids).loss.backward()
        model.zero_grad()

    def generate() -> Any:
        return model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            eos_token_id=None,
            max_new_tokens=NEW_TOKENS,
        )

    return forward, step, generate


def best_ms(models: Sequence[Sequence[Task]]) -> list[list[float]]:
    """The best time of every model's tasks in milliseconds; the models take turns."""
    best = [[math.inf] * len(jobs) for jobs in models]
    for jobs in models:
        for task in jobs:
            task()
    for _ in range(RUNS):
        for jobs, times in zip(models, best, strict=True):
            for i, task in enumerate(jobs):
                times[i] = min(times[i], milliseconds(task))
    return best


def milliseconds(task: Task) -> float:
    """The time that one run of a task takes."""
    start = time.perf_counter()
    task()
    return (time.perf_counter() - start) * 1000


if __name__ == "__main__":
    main()
