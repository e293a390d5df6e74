"""What both tests of the generic oracles look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from peftc.plan.types import Rewrite


def snapshot(network: Any) -> dict[str, tuple[torch.Tensor, bool]]:
    named = network.named_parameters()
    return {name: (p.detach().clone(), p.requires_grad) for name, p in named}


def assert_same(network: Any, wanted: dict[str, tuple[torch.Tensor, bool]]) -> None:
    got = snapshot(network)
    assert got.keys() == wanted.keys()
    for name, (tensor, trained) in got.items():
        assert torch.equal(tensor, wanted[name][0]), name
        assert trained == wanted[name][1], name


def site_values(rewrite: Rewrite) -> dict[str, torch.Tensor]:
    """Random float64 values for all that the equations of a linear read."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    site = rewrite.site
    values = {t.name: draw(*t.shape) for t in rewrite.tensors}
    values["W"] = draw(site.size("out"), site.size("in"))
    values["x"] = draw(2, 5, site.size("in"))
    if site.bias:
        values["bias"] = draw(site.size("out"))
    args = values["x"], values["W"], values.get("bias")
    return values | {"y": torch.nn.functional.linear(*args)}
