"""Inductor trains and generates as eager does, in a bounded number of graphs.

Compiling takes long, so one pair of models goes through everything: an eager one, and
one by Inductor whose blocks are checkpointed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from tests.numerics.runtime.tiny import added, llama, tokens, twin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

SPEC = "lora(q, v, up, r=2)"
GRAPHS = 10
"""Training and evaluation, prefilling and decoding with a cache, each for its first
sizes and for any; the caches of longer prompts look different once more."""


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    base = llama(layers=1)
    eager, inductor = twin(base), twin(base)
    peftc.compile(eager, SPEC)
    peftc.compile(inductor, SPEC, backend="inductor", checkpoint_every=1)
    for model in (eager, inductor):
        generator = torch.Generator().manual_seed(1)
        for _, parameter in added(model):
            parameter.data.normal_(generator=generator)
    return eager, inductor


def trained(model: Any, rows: int, columns: int) -> tuple[Any, ...]:
    """The loss and the gradients of a step."""
    model.train().zero_grad()
    ids = tokens(rows, columns)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.detach(), *(p.grad for _, p in added(model))


@torch.no_grad()
def evaluated(model: Any, rows: int, columns: int) -> tuple[Any, ...]:
    model.eval()
    return (model(input_ids=tokens(rows, columns), use_cache=False).logits,)


def generated(model: Any, rows: int, columns: int) -> tuple[Any, ...]:
    ids, more = tokens(rows, columns), {"do_sample": False, "max_new_tokens": 4}
    model.eval()
    return (model.generate(ids, attention_mask=torch.ones_like(ids), **more),)


def agree(pair: tuple[Any, Any], do: Any, rows: int, columns: int) -> None:
    for one, other in zip(*(do(m, rows, columns) for m in pair), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=2e-6)


def test_the_numbers_of_eager_in_a_bounded_number_of_graphs(
    pair: tuple[Any, Any], tmp_path: Path
) -> None:
    eager, inductor = pair
    for do in (trained, evaluated, generated):
        for rows, columns in ((2, 6), (3, 9)):
            agree(pair, do, rows, columns)
    graphs = inductor.peftc.captures.count
    assert graphs <= GRAPHS
    for do in (trained, evaluated, generated):
        for rows, columns in ((4, 8), (5, 7)):
            agree(pair, do, rows, columns)
    with inductor.peftc.disabled():
        base = evaluated(inductor, 4, 8)[0]
    assert not torch.allclose(base, evaluated(inductor, 4, 8)[0], atol=1e-3)
    for _, parameter in added(eager):
        parameter.data.mul_(0.5)
    eager.peftc.save(tmp_path)
    inductor.peftc.load(tmp_path)
    for do in (trained, evaluated, generated):
        agree(pair, do, 4, 8)
    assert inductor.peftc.captures.count == graphs


def test_checkpointed_blocks_keep_less(pair: tuple[Any, Any]) -> None:
    """Of one layer: after the block only the loss's own values are kept."""
    kept = []
    for model in pair:
        sizes: list[int] = []

        def pack(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(
                0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel()
            )
            return tensor

        trained(model, 4, 8)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trained(model, 4, 8)
        kept.append(sum(sizes))
    assert kept[1] < 0.7 * kept[0], kept
