"""SSF against forward hooks that do the same by hand."""

from __future__ import annotations

import copy

import torch

import peftc
from tests.numerics.runtime.tiny import llama


def test_ssf_scales_and_shifts_what_linears_give() -> None:
    model = llama()
    by_hand = copy.deepcopy(model)
    peftc.compile(model, "ssf(o, up)")
    assert model.peftc.plan.trainable == 2 * 2 * (32 + 48)

    torch.manual_seed(1)
    for name, tensor in model.named_parameters():
        if ".peftc." in name:
            torch.nn.init.normal_(tensor)
            owner, _, role = name.partition(".peftc.")
            linear = by_hand.get_submodule(owner)
            linear.register_parameter(role.split(".")[-1], tensor)
    for linear in by_hand.modules():
        if hasattr(linear, "shift"):
            linear.register_forward_hook(lambda m, _, y: m.scale * y + m.shift)

    ids = torch.arange(2, 12).view(2, 5)
    expected = by_hand(input_ids=ids).logits
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
