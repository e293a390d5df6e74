"""Intrinsic prompt tuning: rows of a code of a few numbers, by hand and by count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

import peftc
from tests.models import model, randomise, tokens

if TYPE_CHECKING:
    from pathlib import Path

P, D, M, HIDDEN = 4, 3, 16, 64


def test_rows_are_decoded(tmp_path: Path) -> None:
    made, other = model("llama"), model("llama")
    peftc.compile(made, f"ipt(p={P}, d={D}, m={M})")
    peftc.compile(other, f"prompt(p={P})")
    assert made.peftc.plan.trainable == D
    randomise(made, scale=1.0)
    named = {**dict(made.named_parameters()), **dict(made.named_buffers())}
    own = {n.rpartition(".")[2]: t for n, t in named.items() if ".ipt." in n}

    def decoded(code: torch.Tensor) -> torch.Tensor:
        inner = torch.tanh(own["A2"] @ code + own["a2"])
        flat: torch.Tensor = own["A3"] @ inner + own["a3"]
        return flat.view(P, HIDDEN)

    (trained,) = (p for p in other.parameters() if p.requires_grad)
    with torch.no_grad():
        trained.copy_(decoded(own["c"]))
    got, wanted = (m(input_ids=tokens()).logits for m in (made, other))
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)
    jacobian = torch.autograd.functional.jacobian(decoded, own["c"].detach())
    assert torch.linalg.matrix_rank(jacobian.reshape(-1, D)) <= D
    got.square().mean().backward()
    assert [n for n, p in made.named_parameters() if p.grad is not None] == [
        n for n, t in named.items() if t is own["c"]
    ]
    made.peftc.save(tmp_path)
    again = peftc.load(model("llama"), tmp_path)
    assert torch.equal(again(input_ids=tokens()).logits, got)
