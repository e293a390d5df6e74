"""What nobody reads is kept where it has an effect."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tests.capturing import at_linears, low_rank, plan, rewrite, rewritten, site


class Mapped(nn.Module):
    """A function of one sample, mapped: the graph opens and closes a level."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.lin(torch.vmap(lambda a: a * a.sum())(x))


def test_levels_of_vmap_are_opened_and_closed() -> None:
    net = Mapped().eval()
    of = site("lin:q", weight="lin.weight", shape=(3, 4))
    tensors = {"A": torch.randn(2, 4), "B": torch.zeros(3, 2)}
    whole = plan(rewrite(of, low_rank(3, 4, 2)))
    run = rewritten(net, whole, {of.key: tensors}, at_linears(of))
    x = torch.randn(2, 5, 4)
    assert torch.equal(run.forward(x), net(x))
