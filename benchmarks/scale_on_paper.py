"""What each of many graphics cards holds and sends in a training step, on paper.

In: nothing; the figures are those of plans for Llama 3 8B and 70B, of which no weight
is ever made.  Out: two Markdown tables on stdout: the plans' figures, and what follows
of them for 1, 8 and 64 cards.  docs/scale.md has both, and a test computes the second
from the first again.  Run it as `python benchmarks/scale_on_paper.py`.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Any

from bench_plan import llama_8b, llama_70b

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPEC = "lora(linear, r=16)"
TOKENS = 2048
MODELS = {"8B": llama_8b, "70B": llama_70b}
CARDS = (1, 8, 64)
GATHERED = 2
"""Layers that FSDP2 holds at once: the one that runs, and the next, on its way."""


@dataclass(frozen=True)
class Figures:
    """Bytes.  `layer`: the base of one layer, of `layers`; `step`: the most that a step
    holds beside what lasts, for one sample on a card."""

    base: int
    layer: int
    layers: int
    adapters: int
    gradients: int
    optimizer: int
    step: int


@dataclass(frozen=True)
class Share:
    """Bytes of one card: held from step to step, at most, and sent in a step."""

    lasting: float
    peak: float
    sent: float


def data_parallel(one: Figures, cards: int) -> Share:
    """Every card has all; gradients are summed up in a ring, there and back."""
    lasting = one.base + one.adapters + one.optimizer
    return Share(lasting, lasting + one.step, 2 * _around(one.gradients, cards))


def sharded(one: Figures, cards: int) -> Share:
    """FSDP2, layer by layer.

    Layers are gathered for the forward and again for the backward, what is in none of
    them once; gradients are summed up to where their shards are.  A step's own figure
    has all gradients in it, of which a card keeps its part.
    """
    if cards == 1:
        return data_parallel(one, cards)
    lasting = (one.base + one.adapters + one.optimizer) / cards
    layers = one.layer * one.layers + one.adapters
    rest = one.base - one.layer * one.layers
    here = GATHERED * layers / one.layers + rest
    step = one.step - one.gradients * (1 - 1 / cards)
    sent = _around(2 * layers + rest + one.gradients, cards)
    return Share(lasting, lasting + here + step, sent)


def _around(size: float, cards: int) -> float:
    """What each card sends for a gather, or for sums that stay in parts, in a ring."""
    return size * (cards - 1) / cards


ENGINES: dict[str, Callable[[Figures, int], Share]] = {
    "DDP": data_parallel,
    "FSDP2 by layer": sharded,
}


def figures(config: Any) -> Figures:
    """Those of the plan for a configuration, its base in bfloat16."""
    import peftc
    from peftc.sites.load import sketch

    config.dtype = "bfloat16"
    plan = peftc.plan(SPEC, config, batch=1, tokens=TOKENS)
    memory: Any = plan.memory
    model: Any = sketch(config)
    layers = model.model.layers
    return Figures(
        memory.base,
        sum(p.nbytes for p in layers[0].parameters()),
        len(layers),
        memory.parameters,
        memory.gradients,
        memory.optimizer,
        memory.peak - memory.lasting,
    )


def planned(found: dict[str, Figures]) -> Iterator[str]:
    """The table of figures."""
    names = [field.name for field in fields(Figures)]
    yield f"| bytes | {' | '.join(names)} |"
    yield "|---|" + "---:|" * len(names)
    for model, one in found.items():
        yield f"| {model} | {' | '.join(map(str, astuple(one)))} |"


def shares(found: dict[str, Figures]) -> Iterator[str]:
    """The table of what each card has."""
    yield "| model | engine | cards | lasting GB | peak GB | sent GB a step |"
    yield "|---|---|---:|---:|---:|---:|"
    for model, one in found.items():
        for engine, share_of in ENGINES.items():
            for cards in CARDS:
                share = astuple(share_of(one, cards))
                numbers = " | ".join(f"{size / 1e9:.1f}" for size in share)
                yield f"| {model} | {engine} | {cards} | {numbers} |"


def main() -> None:
    """Plan, and print both tables."""
    found = {name: figures(config()) for name, config in MODELS.items()}
    print(*planned(found), "", *shares(found), sep="\n")


if __name__ == "__main__":
    main()
