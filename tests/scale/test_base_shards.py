"""A frozen base of which each of two processes keeps a part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.api import compile, load
from tests.numerics.runtime.tiny import refused, tokens
from tests.scale.ranks import in_ranks
from tests.scale.work import (
    SPEC,
    base_model,
    gradients,
    mean_gradients,
    several_in_shards,
    shake,
    shards_and_files,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

CASES: list[tuple[Any, ...]] = [
    (SPEC, torch.float32, "eager"),
    (SPEC, torch.float32, "eager", False),
    (f"{SPEC} + dora(up, r=2) + adapter(ffn, d=4)", torch.bfloat16, "eager"),
    (f"quantize(q, kind=int8) + {SPEC}", torch.float32, "plain"),
    (SPEC, torch.float32, "aot_eager"),
]


def alone(spec: str, dtype: torch.dtype) -> Any:
    """The gradients of one process with a whole base."""
    model = compile(base_model(dtype), spec)
    shake(model)
    mean_gradients(model)
    return gradients(model)


def test_it_trains_as_a_whole_base_does(tmp_path: Path) -> None:
    """Bit for bit; a process has half of the weights, and keeps none of them."""
    ranked = in_ranks(several_in_shards, tmp_path, CASES)
    for ended in ranked:
        for (spec, dtype, backend, *_), (found, *_) in zip(CASES, ended, strict=True):
            near = 1e-6 if backend == "plain" else 0  # another order of operations
            torch.testing.assert_close(found, alone(spec, dtype), rtol=near, atol=near)
    for (_, kept, gathered, held), (_, whole, none, all_of_it), *_ in ranked:
        assert kept == whole
        assert none == (0, 0)
        # 2 layers of 7 linears and the head; below the first of them no gradient
        # passes, so that q, k and v are not gathered again.
        assert gathered == (15, 15 + 15 - 3)
        assert held == all_of_it / 2 + 15 * 4  # a number each in place of the values


def test_files_are_those_of_a_whole_base(tmp_path: Path) -> None:
    whole: Any = compile(base_model(torch.float32).eval(), SPEC)
    shake(whole)
    ids = tokens(2, 6)
    adapted = whole(ids).logits
    with whole.peftc.disabled():
        plain = whole(ids).logits
    written = whole.generate(ids, max_new_tokens=4, do_sample=False)
    for said, told in in_ranks(shards_and_files, tmp_path, str(tmp_path)):
        for one, wanted in zip(said, (adapted, plain, adapted, plain), strict=True):
            assert torch.equal(one, wanted)
        assert torch.equal(told, written)
    for rank in "01":
        again: Any = load(base_model(torch.float32).eval(), tmp_path / rank)
        assert torch.equal(again(ids).logits, adapted)
        assert not again.peftc.plan.stores


def test_one_process_is_refused() -> None:
    with refused("PEFT644"):
        compile(base_model(torch.float32), SPEC, shard_base=True)
