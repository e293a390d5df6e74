"""Which tokens are real, read off the mask that a forward is given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from peftc.view import Site
from tests.capturing import (
    Rewritten,
    at_linears,
    given,
    plan,
    program,
    rewrite,
    rewritten,
    step,
)
from tests.capturing import token as read

WIDTH = 12


class Masked(nn.Module):
    """A linear whose output the mask does not touch."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(WIDTH, WIDTH)

    def forward(
        self, x: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> Any:
        y = self.lin(x)
        return y if attention_mask is None else (y, attention_mask + 1)


def masked() -> Rewritten:
    """y' = y times the number of real tokens."""
    site = Site(
        "lin:q",
        "q",
        "linear",
        "lin",
        (("in", WIDTH), ("out", WIDTH)),
        "float32",
        weight="lin.weight",
    )
    counted = program(
        "y",
        [read("y", WIDTH), read("real"), given("l", WIDTH)],
        step("%0", "ein", "real", spec="bt->b"),
        step("%1", "ein", "%0 y l", WIDTH, spec="b,btf,f->btf"),
        separate=True,
    )
    added = {site.key: {"l": torch.ones(WIDTH)}}
    torch.manual_seed(0)
    whole = plan(rewrite(site, counted))
    return rewritten(Masked(), whole, added, at_linears(site), dynamic=True)


def test_real_tokens_are_those_of_the_mask() -> None:
    torch.manual_seed(0)
    model, run = Masked(), masked()
    x = torch.randn(2, 4, WIDTH)
    assert run.forward(x).allclose(4 * model(x))
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    out, _ = run.forward(x, attention_mask=mask)
    wanted = model(x) * mask.sum(-1)[:, None, None]
    torch.testing.assert_close(out, wanted)
    longer = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 1, 1]])
    out, _ = run.forward(x, attention_mask=longer)
    torch.testing.assert_close(out, wanted)


def test_a_mask_of_four_axes_says_nothing_of_tokens() -> None:
    with pytest.raises(Exception, match="PEFT441"):
        masked().forward(
            torch.randn(2, 4, WIDTH), attention_mask=torch.ones(2, 1, 4, 4)
        )
