"""Agreement with AdapterHub's `adapters`: their tensors, outputs and gradients.

`tests/oracles/adapterhub.py` says what means what.  1e-4 is the tolerance that the
reference outputs come with: an independent implementation reproduces them to 5.4e-5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import peftc
from tests.oracles import adapterhub as hub

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", hub.CASES)
def test_outputs_and_gradients_are_theirs(name: str) -> None:
    case, tensors = hub.CASES[name], hub.case_tensors(name)
    model, inputs = hub.base(name, "eager")
    peftc.compile(model, case.spec)
    assert model.peftc.plan.trainable == case.count
    named = load(model, case, tensors)
    output = model(**inputs, output_hidden_states=True)
    output.logits.square().mean().backward()
    assert_outputs(output, hub.group(tensors, "out"))
    gradients = hub.imported(hub.group(tensors, "grad"), case, named)
    for name, gradient in gradients.items():
        if isinstance(named[name], torch.nn.Parameter):  # VeRA's A and B are buffers
            assert named[name].grad is not None
            assert_close(named[name].grad, gradient, name)


def load(model: nn.Module, case: hub.Case, tensors: hub.Tensors) -> dict[str, Any]:
    """Copy their tensors into ours; every trained tensor of ours has got its value."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    given = hub.group(tensors, "adapter") | hub.group(tensors, "fusion")
    filled = hub.imported(given, case, named)
    with torch.no_grad():
        for name, tensor in filled.items():
            named[name].copy_(tensor.reshape(named[name].shape))
    assert filled.keys() >= {n for n, p in model.named_parameters() if p.requires_grad}
    return named


def assert_outputs(output: Any, wanted: hub.Tensors) -> None:
    assert_close(output.logits, wanted["logits"], "logits")
    for number, states in enumerate(output.hidden_states):
        assert_close(states, wanted[f"hidden_states.{number}"], f"states {number}")


def assert_close(got: torch.Tensor, wanted: torch.Tensor, what: str) -> None:
    """Absolute below one, relative to the largest value above."""
    scale = max(1.0, float(wanted.abs().max()))
    difference = float((got - wanted.reshape(got.shape)).detach().abs().max())
    assert difference < TOLERANCE * scale, f"{what}: {difference:.1e}"


def test_every_reference_output_is_imported_or_explained() -> None:
    files = {path.stem for path in hub.GOLDEN.glob("*__*.safetensors")}
    assert files == hub.CASES.keys()
    assert not hub.CASES.keys() & hub.NOT_YET.keys()
    assert len(hub.CASES) + len(hub.NOT_YET) == 35
