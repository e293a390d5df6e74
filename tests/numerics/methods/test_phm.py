"""PHM adapters are dense adapters made of sums of Kronecker products."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

import peftc
from tests.numerics.runtime.tiny import llama

TERMS, RANK, WIDTH, INNER = 2, 1, 32, 8
SPEC = f"phm(ffn, terms={TERMS}, d={INNER}, rank={RANK}, zero=false)"


def compiled() -> tuple[Any, Any, dict[str, torch.Tensor]]:
    """A model with random factors, an untouched copy, and the factors."""
    made = llama()
    untouched = copy.deepcopy(made)
    peftc.compile(made, SPEC)
    named = {n: p for n, p in made.named_parameters() if ".peftc." in n}
    torch.manual_seed(0)
    for parameter in named.values():
        torch.nn.init.normal_(parameter)
    return made, untouched, named


def dense(
    rule: torch.Tensor, named: dict[str, torch.Tensor], at: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two matrices of an adapter."""
    found = []
    for number in "12":
        left, right = named[f"{at}S{number}"], named[f"{at}T{number}"]
        parts = [
            torch.kron(rule[i].contiguous(), left[i] @ right[i]) for i in range(TERMS)
        ]
        found.append(torch.stack(parts).sum(0))
    return found[0], found[1]


def adapted(
    matrices: tuple[torch.Tensor, torch.Tensor],
    offsets: tuple[torch.Tensor, torch.Tensor],
    _: Any,
    __: Any,
    h: torch.Tensor,
) -> torch.Tensor:
    """What a forward hook gives in the place of h."""
    (down, up), (bd, bu) = matrices, offsets
    return h + F.linear(F.gelu(F.linear(h, down, bd)), up, bu)


def test_a_phm_adapter_is_a_dense_one() -> None:
    made, untouched, named = compiled()
    (rule,) = (p for n, p in named.items() if n.endswith(".P"))  # of all layers
    for number in range(2):
        owner = f"model.layers.{number}.mlp.down_proj"
        at = f"{owner}.peftc.ffn.phm."
        down, up = dense(rule, named, at)
        assert torch.linalg.matrix_rank(down) <= TERMS * TERMS * RANK < INNER
        offsets = named[f"{at}bd"], named[f"{at}bu"]
        hook = partial(adapted, (down, up), offsets)
        untouched.get_submodule(owner).register_forward_hook(hook)
    ids = torch.arange(2, 12).view(2, 5)
    got, wanted = made(input_ids=ids).logits, untouched(input_ids=ids).logits
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)
