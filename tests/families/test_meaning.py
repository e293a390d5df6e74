"""Roles and rows mean what they say: changes that attention and gates cannot see.

Scaling what makes queries and unscaling what makes keys, scaling values and unscaling
what reads them, changes no logit; nor does it for the branch of a gate that is linear.
Any row given to a wrong role would change them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from peftc.sites.view import model_view
from tests.families.cases import model, slow

if TYPE_CHECKING:
    from peftc.view import ModelView, Site

HEADS = (("q", "k"), ("v", "o"))
GATES = (("up", "down"),)
EXPERTS = (("experts.up", "experts.down"),)
PAIRS = [
    *(("gpt-neox", pair) for pair in HEADS),
    *(("phi3", pair) for pair in HEADS + GATES),
    *(slow(f, p) for f in ("llama", "gpt2", "bert-mlm", "t5") for p in HEADS),
    *(slow(f, p) for f in ("llama", "qwen3", "gemma2") for p in GATES),
    *(slow(f, p) for f in ("mixtral", "llama4", "qwen2-moe") for p in EXPERTS),
    *(slow(f, p) for f in ("qwen2-moe", "llama4") for p in GATES),
    *(slow(f, ("v", "o")) for f in ("deepseek-v3", "gpt-oss", "jamba")),
]


READERS = ("o", "down", "experts.down")


def scale(made: Any, site: Site, factor: float, *, inputs: bool) -> None:
    """Multiply the output channels of a site, or its input channels."""
    weight = made.get_parameter(site.weight)
    matrix = weight.mT if site.transposed else weight
    if inputs:
        matrix.mul_(factor)
        return
    for start, stop in site.rows or ((0, matrix.shape[-2]),):
        matrix[..., start:stop, :].mul_(factor)
        if site.bias:
            made.get_parameter(site.bias)[..., start:stop].mul_(factor)


def logits(made: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(3, 96, (2, 7), generator=generator)
    more = {"decoder_input_ids": tokens} if made.config.is_encoder_decoder else {}
    with torch.no_grad():
        result: torch.Tensor = made(input_ids=tokens, **more).logits
    return result


def of_role(view: ModelView, role: str) -> list[Site]:
    return [site for site in view.sites if site.role == role]


@pytest.mark.parametrize(("family", "pair"), PAIRS)
def test_scales_that_cancel(family: str, pair: tuple[str, str]) -> None:
    made = model(family, device="cpu")
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        view = model_view(made)
        before = logits(made)
        for site in of_role(view, pair[0]):
            scale(made, site, 2.0, inputs=False)
        halfway = logits(made)
        for site in of_role(view, pair[1]):
            scale(made, site, 0.5, inputs=pair[1] in READERS)
    assert not torch.allclose(before, halfway, rtol=1e-3)
    # Powers of two are exact in floating point, sums of them in any order too.
    assert torch.equal(before, logits(made))
