"""KronA_B and KronA_B_res against forward hooks with `torch.kron`."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import peftc
from peftc.driver import make_plan
from peftc.syntax.source import Source
from tests.numerics.runtime.tiny import llama, logits
from tests.views import toy


@pytest.mark.parametrize(("method", "count"), [("krona_b", 256), ("krona_b_res", 258)])
def test_counts(method: str, count: int) -> None:
    plan = make_plan(Source("<spec>", f"{method}(ffn)"), toy())
    assert plan.trainable == count
    assert {r.merge.kind for r in plan.rewrites} == {"none"}


def beside(named: dict[str, Any], s: float, block: Any, args: Any, h: Any) -> Any:
    product = torch.kron(named["A"], named["B"])
    result = h + s * F.linear(args[0], product)
    return result + named["res"] * args[0] if "res" in named else result


@pytest.mark.parametrize("method", ["krona_b", "krona_b_res"])
def test_a_product_beside_the_block(method: str) -> None:
    model = llama()
    by_hand = copy.deepcopy(model)
    base = logits(model)
    peftc.compile(model, f"{method}(ffn, a1=8, s=2)")
    assert torch.equal(logits(model), base)
    torch.manual_seed(1)
    for layer in range(2):
        owner = f"model.layers.{layer}.mlp"
        found = {
            name.rpartition(".")[2]: parameter
            for name, parameter in model.named_parameters()
            if name.startswith(owner) and ".peftc." in name
        }
        for parameter in found.values():
            torch.nn.init.normal_(parameter)
        hook = partial(beside, found, 2)
        by_hand.get_submodule(owner).register_forward_hook(hook)
    got = logits(model)
    torch.testing.assert_close(got, logits(by_hand), rtol=1e-4, atol=1e-4)


def test_kronecker_products_have_the_product_of_ranks() -> None:
    """And scaling the one factor undoes scaling the other."""
    torch.manual_seed(0)
    a, b = torch.randn(6, 2) @ torch.randn(2, 5), torch.randn(4, 3) @ torch.randn(3, 7)
    assert torch.linalg.matrix_rank(torch.kron(a, b)) == 6
    model = llama()
    peftc.compile(model, "krona_b(ffn)")
    named = {n: p for n, p in model.named_parameters() if ".peftc." in n}
    for parameter in named.values():
        torch.nn.init.normal_(parameter)
    before = logits(model)
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.mul_(4 if name.endswith("A") else 0.25)
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
