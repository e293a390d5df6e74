"""One batch with an adapter for each row, against Hugging Face PEFT's mixed batch.

In: nothing; a Llama with random weights is made here.  Out: a Markdown table on stdout,
milliseconds of a forward and of one generated token, least of several rounds in turn,
one thread, processor time.  Before that the logits of both are compared.  `single` is
peftc with all rows on one active adapter, `base` the model without any.  Run it as
`python benchmarks/bench_rows.py`.
"""

from __future__ import annotations

import argparse
import copy
import time
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

import peftc

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, LAYERS, RANK = 512, 6, 8
BATCH, TOKENS, MADE = 8, 64, 16
LOADED, USED = (1, 4, 16), (1, 4)
SPEC = f"lora(linear, r={RANK}, alpha={RANK})"
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "gate_proj", "down_proj"]


def base() -> Any:
    """A Llama with random weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=1024,
        pad_token_id=0,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def ours(model: Any, loaded: int) -> Any:
    """The model with so many adapters in slots `0`, `1`, ..."""
    peftc.compile(model, SPEC)
    for number in range(loaded):
        model.peftc.slots.add(str(number))
        generator = torch.Generator().manual_seed(number)
        for tensor in model.peftc.slots.tensors(str(number)).values():
            tensor.data.normal_(0, 0.02, generator=generator)
    return model


def theirs(model: Any, mine: Any, loaded: int) -> Any:
    """The same adapters in PEFT."""
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LINEARS)
    wrapped = get_peft_model(model, config, adapter_name="0")
    for number in range(1, loaded):
        wrapped.add_adapter(str(number), config)
    for number in range(loaded):
        for path, tensor in mine.peftc.slots.tensors(str(number)).items():
            owner, _, name = path.partition(".peftc.")
            inner: Any = wrapped.base_model.model
            layer = inner.get_submodule(owner)
            factors = getattr(layer, f"lora_{name[-1]}")
            factors[str(number)].weight.data.copy_(tensor)
    return wrapped.eval()


def calls(mine: Any, other: Any, plain: Any, names: list[str]) -> dict[str, Any]:
    """What is timed, by its name: a forward, and generation."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 1024, (BATCH, TOKENS), generator=generator)
    mask = torch.ones_like(ids)
    how = {"max_new_tokens": MADE, "do_sample": False, "attention_mask": mask}

    def rows(run: Callable[[], Any]) -> Any:
        with mine.peftc.slots.rows(names):
            return run()

    def one(run: Callable[[], Any]) -> Any:
        with mine.peftc.slots.using(names[0]):
            return run()

    def forward() -> Any:
        return mine(input_ids=ids).logits

    def generate() -> Any:
        return mine.generate(ids, **how)

    return {
        "base": (
            lambda: plain(input_ids=ids).logits,
            lambda: plain.generate(ids, **how),
        ),
        "single": (lambda: one(forward), lambda: one(generate)),
        "peftc": (lambda: rows(forward), lambda: rows(generate)),
        "PEFT": (
            lambda: other(input_ids=ids, adapter_names=names).logits,
            lambda: other.generate(ids, adapter_names=names, **how),
        ),
    }


def least(runs: dict[str, Any], part: int, rounds: int) -> dict[str, float]:
    """The least milliseconds of each, which take turns."""
    found: dict[str, float] = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, parts in runs.items():
            start = time.process_time()
            parts[part]()
            spent = 1000 * (time.process_time() - start)
            if turn:  # the first round captures
                found[name] = min(found[name], spent)
    return found


def compare(runs: dict[str, Any]) -> None:
    """Refuse to time two that differ."""
    torch.testing.assert_close(
        runs["peftc"][0](), runs["PEFT"][0](), rtol=1e-4, atol=1e-4
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    print("| loaded | used | what | base | single | peftc | PEFT |")
    print("| --: | --: | --- | --: | --: | --: | --: |")
    plain = base()
    for loaded in LOADED:
        torch._dynamo.reset()
        mine = ours(copy.deepcopy(plain), loaded)
        other = theirs(copy.deepcopy(plain), mine, loaded)
        for used in (u for u in USED if u <= loaded):
            names = [str(row % used) for row in range(BATCH)]
            runs = calls(mine, other, plain, names)
            with torch.no_grad():
                compare(runs)
                for part, what in enumerate(("forward", "token")):
                    times = least(runs, part, rounds)
                    scale = MADE if part else 1
                    cells = " | ".join(f"{t / scale:.1f}" for t in times.values())
                    print(f"| {loaded} | {used} | {what} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
