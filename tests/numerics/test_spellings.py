"""Methods on models that spell their linears otherwise, against weights made by hand.

Falcon writes `x @ w.T + bias`, OpenAI-GPT has transposed weights, CodeGen and Falcon
interleave the rows of q, k and v.  What a method makes of a weight is put into an
untouched copy of the model here, in the rows that the family's expectation names.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from tests.families.cases import model, slow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftc.view import Site

SPECS = {
    "lora": "lora(q, k, v, o, up, down, r=2, alpha=4)",
    "dora": "dora(q, k, v, o, up, down, r=2, alpha=4)",
    "ia3": "ia3(q, k, v, o, up, ffn)",
}
QUICK = (("falcon-alibi", "lora"), ("falcon-alibi", "ia3"))
FAMILIES = ("falcon", "falcon-alibi", "falcon-new", "openai-gpt", "codegen")
CASES = [
    pytest.param(f, m, id=f"{f}-{m}") if (f, m) in QUICK else slow(f, m)
    for f in FAMILIES
    for m in SPECS
]


def lora(w: Any, c: Any, t: dict[str, Any], role: str) -> tuple[Any, Any]:
    return w + 2 * t["B"] @ t["A"], c


def dora(w: Any, c: Any, t: dict[str, Any], role: str) -> tuple[Any, Any]:
    new = w + 2 * t["B"] @ t["A"]
    norm = new.detach().norm(dim=1)
    return (t["m"] / norm)[:, None] * new, c


def ia3(w: Any, c: Any, t: dict[str, Any], role: str) -> tuple[Any, Any]:
    if role == "down":
        return w * t["l"], c
    return w * t["l"][:, None], None if c is None else c * t["l"]


RULES = {"lora": lora, "dora": dora, "ia3": ia3}


def tensors(made: Any, site: Site) -> dict[str, torch.nn.Parameter]:
    """The added tensors of a site, by their names in the method."""
    start = f"{site.owner}.peftc.{site.role}."
    named = made.named_parameters()
    return {n.rpartition(".")[2]: p for n, p in named if n.startswith(start)}


def weights(made: Any, base: Any, method: str) -> dict[str, torch.Tensor]:
    """What the method makes of the weights and biases of the base."""
    new: dict[str, torch.Tensor] = {}
    for site in made.peftc.sites:
        rows = range(site.size("out")) if site.rows is None else numbers(site)
        index = torch.tensor(list(rows))
        whole = new.get(site.weight, base.get_parameter(site.weight))
        offsets = base.get_parameter(site.bias) if site.bias else None
        offsets = new.get(site.bias, offsets)
        matrix = whole.T if site.transposed else whole
        own = None if offsets is None else offsets[index]
        w, c = RULES[method](matrix[index], own, tensors(made, site), site.role)
        matrix = matrix.index_copy(0, index, w)
        new[site.weight] = matrix.T if site.transposed else matrix
        if offsets is not None:
            new[site.bias] = offsets.index_copy(0, index, c)
    return new


def numbers(site: Site) -> Iterator[int]:
    for start, stop in site.rows or ():
        yield from range(start, stop)


@pytest.mark.parametrize(("family", "method"), CASES)
def test_a_method(family: str, method: str) -> None:
    made = model(family, device="cpu").double()
    base = copy.deepcopy(made)
    peftc.compile(made, SPECS[method])
    torch.manual_seed(1)
    for name, tensor in made.named_parameters():
        if ".peftc." in name:
            torch.nn.init.normal_(tensor, std=0.5)
    ids = torch.arange(3, 17).view(2, 7)

    new = weights(made, base, method)
    expected = torch.func.functional_call(base, new, kwargs={"input_ids": ids}).logits
    actual = made(input_ids=ids).logits
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    assert not torch.allclose(actual, base(input_ids=ids).logits, rtol=1e-2)

    added = [p for n, p in made.named_parameters() if ".peftc." in n]
    ramp = torch.linspace(-1, 1, actual.numel(), dtype=actual.dtype).view_as(actual)
    of_peftc = torch.autograd.grad((actual * ramp).sum(), added)
    by_hand = torch.autograd.grad((expected * ramp).sum(), added)
    for one, other in zip(of_peftc, by_hand, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)

    made.peftc.merge()
    with torch.no_grad():
        merged = made(input_ids=ids).logits
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-10)
