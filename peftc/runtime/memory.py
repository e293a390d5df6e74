"""What a training step of a plan holds, counted without running it.

In: a model, and a plan for it.  Out: `Held`.  The step is the one that a compiled model
runs, on fake tensors: shapes and lifetimes without values.  So it costs no memory and
little time at any size, and counts what the operations of the tensors' device keep.
"""

from __future__ import annotations

import copy
import gc
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from peftc.runtime.install import install
from peftc.runtime.meter import Meter
from peftc.sites.inputs import example_inputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from peftc.pipeline import Manager
    from peftc.plan.types import Plan


@dataclass(frozen=True)
class Held:
    """Bytes that a training step holds beside parameters and optimizer states.

    `activations`: after the forward, until the backward, when of its result only the
    loss is held; `peak`: the most at any time, gradients of the parameters included.
    """

    activations: int
    peak: int


def fake_copy(model: nn.Module) -> nn.Module:
    """A copy of a model without values."""
    with FakeCopyMode(FakeTensorMode(allow_non_fake_inputs=True)):
        return copy.deepcopy(model)


def training_step(
    model: nn.Module, plan: Plan, manager: Manager, inputs: Mapping[str, Any]
) -> Held:
    """Run a step of a model without values, with the plan in it.

    The model is changed: it is compiled, and in training mode.

    Raises:
        PeftcError: the plan does not fit, or the model cannot be captured in training.
    """
    meter = Meter()
    fakes = (p for p in model.parameters() if isinstance(p, FakeTensor))
    with next(fakes).fake_mode:
        handle = install(model, plan, "", manager, around=meter.around)
    handle.unattended = False  # what controls do besides holds no memory of a step
    loss = _loss(model.train()(**inputs))
    gc.collect()  # at times the rest of the result hangs in a cycle
    activations = meter.held
    if loss.requires_grad:
        with meter:
            loss.backward()
    return Held(activations, meter.peak)


def training_inputs(
    model: nn.Module,
    sizes: tuple[int, int],
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What a data collator gives a model: tokens, a padding mask, and labels if the
    model predicts tokens.

    Args:
        sizes: samples, and tokens of each where `given` does not have the tokens.
        given: arguments of the forward; what is not given is made up.
    """
    given = given or {}
    made = {
        name: _sized(value, sizes, name in given)
        for name, value in example_inputs(model, given).items()
    }
    accepted = inspect.signature(model.forward).parameters
    read = made.get("input_ids")
    if read is not None and "attention_mask" in accepted:
        made.setdefault("attention_mask", torch.ones_like(read))
    told = made.get("decoder_input_ids", read)
    if told is not None and "labels" in accepted and _predicts_tokens(model):
        made.setdefault("labels", torch.ones_like(told))
    return made


def _sized(value: Any, sizes: tuple[int, int], is_given: bool) -> Any:
    """An input for another number of samples, and of tokens if it is made up."""
    if not isinstance(value, torch.Tensor) or not value.ndim:
        return value
    batch, tokens = sizes
    is_fixed = is_given or value.is_floating_point()
    return value.new_ones((batch, *(value.shape[1:] if is_fixed else (tokens,))))


def _predicts_tokens(model: Any) -> bool:
    ask = getattr(model, "get_output_embeddings", None)
    return ask is not None and ask() is not None


def _loss(result: Any) -> torch.Tensor:
    """The loss of a result; without one, a sum, which keeps nothing of its own."""
    loss = getattr(result, "loss", None)
    if loss is not None:
        assert isinstance(loss, torch.Tensor)
        return loss
    leaves = (v for v in tree_leaves(result) if isinstance(v, torch.Tensor))
    sums = [v.sum() for v in leaves if v.requires_grad]
    return torch.stack([s.double() for s in sums]).sum() if sums else torch.zeros(())


def positions(model: nn.Module) -> int | None:
    """How many positions the model's configuration says it has."""
    found = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None
