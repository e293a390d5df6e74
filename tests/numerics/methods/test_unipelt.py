"""UniPELT as a whole: gates see no later token, no padding, and can be wide open."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import peftc
from tests.models import model
from tests.numerics.runtime.tiny import bart

pytestmark = pytest.mark.slow
TOLERANCE = 1e-9
PLAIN = "lora(q, v, r=2, alpha=2) + prefix(p=3) + pfeiffer(ffn, d=4)"


def moved(base: Any, spec: str = "unipelt(p=3, d=4, r=2)") -> Any:
    """A compiled model in float64 whose added tensors are not what they start as."""
    compiled = base.double()
    peftc.compile(compiled, spec)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in compiled.parameters():
            if parameter.requires_grad:
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.3 * drawn)
    return compiled


def assert_close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=TOLERANCE, atol=TOLERANCE)


def ids(columns: int = 9, rows: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(3, 128, (rows, columns), generator=generator)


def test_in_a_decoder_no_token_depends_on_later_ones() -> None:
    decoder = moved(model("llama", num_hidden_layers=1))
    before = decoder(input_ids=ids()).logits
    changed = ids()
    changed[:, 5:] = 7
    after = decoder(input_ids=changed).logits
    assert torch.equal(after[:, :5], before[:, :5])
    assert not torch.allclose(after[:, 5:], before[:, 5:])

    first = decoder(input_ids=ids()[:, :6], use_cache=True)
    rest = decoder(input_ids=ids()[:, 6:], past_key_values=first.past_key_values)
    stepwise = torch.cat((first.logits, rest.logits), 1)
    assert_close(stepwise, before)


@pytest.mark.parametrize("side", ["left", "right"])
def test_in_an_encoder_padding_does_not_reach_the_gates(side: str) -> None:
    encoder = moved(model("bert", num_hidden_layers=1))
    padding, mask = torch.full((2, 3), 9), torch.ones(2, 6)
    parts = [ids(6), padding] if side == "right" else [padding, ids(6)]
    masks = [mask, torch.zeros(2, 3)] if side == "right" else [torch.zeros(2, 3), mask]
    positions = torch.arange(6).expand(2, 6)
    places = [positions, padding * 0]
    given = {
        "input_ids": torch.cat(parts, 1),
        "attention_mask": torch.cat(masks, 1),
        "position_ids": torch.cat(places if side == "right" else places[::-1], 1),
    }
    hidden = encoder.bert(**given).last_hidden_state
    plain = encoder.bert(input_ids=ids(6), attention_mask=mask).last_hidden_state
    kept = hidden[:, :6] if side == "right" else hidden[:, 3:]
    assert_close(kept, plain)


def test_with_open_gates_it_is_the_sum_of_its_methods() -> None:
    gated, plain = moved(bart()), moved(bart(), PLAIN)
    with torch.no_grad():
        inner = dict(plain.named_parameters())
        for name, parameter in gated.named_parameters():
            role = name.rpartition(".")[2]
            if ".gate" in name and role in ("w", "c"):
                parameter.fill_(40 if role == "c" else 0)
            elif parameter.requires_grad:
                parameter.copy_(inner[name])
    given = {"input_ids": ids() % 64, "decoder_input_ids": ids(4) % 64}
    expected = plain(**given).logits
    torch.testing.assert_close(
        gated(**given).logits, expected, rtol=TOLERANCE, atol=TOLERANCE
    )
