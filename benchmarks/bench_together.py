"""Training steps on one core: sites as one step, the ordinary way, PEFT, frozen bases.

The workload: a Llama of 6 layers, 512 wide, 8 heads with 4 of keys, 1376 in the
feed-forward, 2000 tokens; 4 x 128 tokens, float32, every linear.  All models are in one
process and take turns in random order.  Times are the processor's, the least of
all rounds; the ratio is the middle of those of each round.  Losses are compared before.
In: nothing.  Out: a table of Markdown.  Run `python benchmarks/bench_together.py`.
"""

from __future__ import annotations

import copy
import random
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import peftc

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

LAYERS, BATCH, TOKENS, ROUNDS = 6, 4, 128, 20
NAMES = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
FROZEN, ORDINARY, TOGETHER, PEFT = "frozen", "eager", "together", "PEFT"
HEAD = (
    "method",
    "frozen",
    "eager",
    "together",
    "PEFT",
    "together / PEFT",
    "kept / PEFT",
)


@dataclass(frozen=True)
class Pair:
    """A spec, and PEFT's configuration that means the same."""

    spec: str
    config: Callable[[], Any]


PAIRS = {
    "lora": Pair(
        "lora(linear, r=8)",
        lambda: LoraConfig(r=8, lora_alpha=16, target_modules=NAMES),
    ),
    "dora": Pair(
        "dora(linear, r=8)",
        lambda: LoraConfig(r=8, lora_alpha=16, use_dora=True, target_modules=NAMES),
    ),
    "krona": Pair(
        "krona(linear)",
        lambda: LoKrConfig(r=1000, alpha=1000, target_modules=NAMES),
    ),
    "loha": Pair(
        "loha(linear, r=8)",
        lambda: LoHaConfig(r=8, alpha=16, target_modules=NAMES),
    ),
    "ia3": Pair(
        "ia3(k, v, ffn)",
        lambda: IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        ),
    ),
}


def main() -> None:
    """The table, a row for each method."""
    torch.set_num_threads(1)
    print(f"| {' | '.join(HEAD)} |\n| --- |{' --: |' * (len(HEAD) - 1)}")
    for name, pair in PAIRS.items():
        print(f"| {name} | {' | '.join(row(pair))} |", flush=True)


def row(pair: Pair) -> list[str]:
    """Milliseconds of each model, then time and kept bytes against PEFT's."""
    base = llama()
    models = {
        FROZEN: base,
        ORDINARY: peftc.compile(copy.deepcopy(base), pair.spec),
        TOGETHER: peftc.compile(copy.deepcopy(base), pair.spec, backend="together"),
        PEFT: get_peft_model(copy.deepcopy(base), pair.config()),
    }
    ids = torch.randint(0, 2000, (BATCH, TOKENS))
    losses = {n: loss(m.train(), ids) for n, m in models.items()}
    values = [value.item() for value in losses.values()]
    assert max(values) - min(values) < 1e-4 * max(values), values
    bytes_kept = {n: kept(models[n], ids) for n in (TOGETHER, PEFT)}
    found = timed(models, ids)
    times = [f"{1000 * min(found[name]):.0f}" for name in models]
    pairs = zip(found[TOGETHER], found[PEFT], strict=True)
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    return [*times, f"{ratio:.2f}", f"{bytes_kept[TOGETHER] / bytes_kept[PEFT]:.2f}"]


def llama() -> Any:
    """The frozen base."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=512,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        intermediate_size=1376,
        vocab_size=2000,
    )
    return LlamaForCausalLM(config).requires_grad_(False)


def loss(model: Any, ids: Tensor) -> Tensor:
    """The loss of one batch; a frozen base is differentiated in what it reads."""
    if any(parameter.requires_grad for parameter in model.parameters()):
        given = {"input_ids": ids}
    else:
        given = {"inputs_embeds": model.get_input_embeddings()(ids).requires_grad_()}
    found: Tensor = model(**given, labels=ids).loss
    return found


def step(model: Any, ids: Tensor) -> float:
    """Seconds of processor time for a forward and a backward."""
    model.zero_grad(set_to_none=True)
    begun = time.process_time()
    loss(model, ids).backward()
    return time.process_time() - begun


def timed(models: Mapping[str, Any], ids: Tensor) -> Mapping[str, list[float]]:
    """The seconds of every round; the first, which captures, is not counted."""
    found: dict[str, list[float]] = {name: [] for name in models}
    for number in range(ROUNDS + 1):
        for name in random.sample(list(models), len(models)):
            seconds = step(models[name], ids)
            if number:
                found[name].append(seconds)
    return found


def kept(model: Any, ids: Tensor) -> int:
    """Bytes that autograd keeps, parameters aside."""
    sizes: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, torch.nn.Parameter):
            storage = value.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        alive = loss(model, ids)
    del alive
    return sum(sizes.values())


if __name__ == "__main__":
    main()
