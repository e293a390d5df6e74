"""Programs compute what the equations say: run in float64 at odd sizes, with gradients,
against the reference evaluator; merged weights against the programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from peftc.expr import ir
from peftc.expr.evaluate import evaluate, run
from peftc.expr.ir import Leaf
from peftc.expr.merge import Merged, derive_merge
from peftc.expr.order import order
from peftc.expr.places import HIDDEN, LINEAR, PLACES
from peftc.view import Site
from tests.equations import CASES, Stack, gated, stack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

BATCH, TOKENS = 2, 5

STACKS = (
    ("lora", "ia3"),
    ("ia3", "lora", "bitfit"),
    ("krona", "lora", "ia3_in"),
    ("dora", "lora", "gated_lora"),
    ("oft", "lora_dropout", "ssf"),
    ("hra", "oft", "dora"),
    ("oft_left", "loha", "bitfit"),
    ("lora", "krona", "lora_dropout", "unipelt_lora"),
    ("adapter", "parallel", "loreft"),
)
GATED = (("lora",), ("ia3",), ("dora",), ("krona",), ("bitfit",), ("oft",))


def tensors_for(roots: Sequence[ir.Node], env: Mapping[str, int]) -> dict[str, Tensor]:
    """A random tensor for each leaf; indices for those named `idx`."""
    generator = torch.Generator().manual_seed(1)
    leaves = {n.name: n for n in ir.walk(*roots) if isinstance(n, Leaf)}
    found = {}
    for name, leaf in sorted(leaves.items()):
        shape = [axis.value(env) for axis in leaf.axes]
        value = torch.rand(shape, generator=generator, dtype=torch.float64) * 0.8 + 0.1
        if name.endswith(".idx"):
            found[name] = (value * 60).long()
            continue
        signs = torch.rand(shape, generator=generator, dtype=torch.float64) < 0.5
        positive = leaf.kind == "buffer"
        found[name] = value if positive else torch.where(signs, -value, value)
    return found


def given(composed: Composed, env: Mapping[str, int], biased: bool) -> dict[str, Tensor]:
    """Tensors for all leaves of a site, the linear's output included."""
    leaves = [v for n, v in PLACES[composed.kind].items() if n != "y"]
    tensors = tensors_for((*composed.outputs.values(), *leaves), env)
    if composed.kind == "linear":
        if not biased:
            del tensors["bias"]
        y = tensors["x"] @ tensors["W"].T
        tensors["y"] = y + tensors["bias"] if biased else y
    return tensors


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    scale = other.abs().max().clamp(min=1e-30)
    return bool((one - other).abs().max() <= tolerance * scale)


def check(site: Stack, biased: bool) -> None:
    """Values and gradients of every program against the evaluator."""
    composed = site.composed(biased)
    env = {"b": BATCH, "t": TOKENS, **site.env}
    for target, output in composed.outputs.items():
        tensors = given(composed, env, biased)
        floats = {
            name: value.requires_grad_()
            for name, value in tensors.items()
            if name != "y" and value.is_floating_point()
        }
        if composed.kind == "linear":
            y = floats["x"] @ floats["W"].T
            tensors["y"] = y + floats["bias"] if biased else y
        (expected,) = evaluate([output], tensors, env)
        program = order(composed, target, env, biased)
        result = run(program, tensors)
        assert result.shape == expected.shape
        assert close(result, expected, 1e-12)
        wanted = gradients(expected, floats)
        for name, grad in gradients(result, floats).items():
            assert close(grad, wanted[name], 1e-10), name


def gradients(value: Tensor, leaves: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)
    found = torch.autograd.grad(
        (value * weights).sum(), list(leaves.values()), allow_unused=True
    )
    return {
        name: torch.zeros_like(leaf) if grad is None else grad
        for (name, leaf), grad in zip(leaves.items(), found, strict=True)
    }


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_program_equals_equation(name: str, biased: bool) -> None:
    check(stack([name]), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_program_of_several_equals_equation(names: tuple[str, ...], biased: bool) -> None:
    check(stack(names), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", GATED, ids="+".join)
def test_program_of_a_gate_equals_equation(names: tuple[str, ...], biased: bool) -> None:
    check(gated(names), biased)
