"""Methods that start as the identity leave the numbers of every family as they are.

Every linear, edge and norm that is found gets one.  Outputs and, under the backend
`plain`, the gradients of all base parameters are, to the bit, those of eager execution;
of the families in the table of docs/identity.md those of the base as torch.compile
captures it, unrewritten.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import peftc
from peftc.sites.capture import plain_buffers
from peftc.sites.inputs import example_inputs
from peftc.sites.tracing import tracing
from tests.families.cases import CASES, FAMILIES, model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPEC = (
    """lora({linears}, r=2) + adapter(attn?, ffn?, block?, d=2) + norm_tuning(norm?)"""
)
LINEARS = "linear?, router?"
ROOT = Path(__file__).parents[2]
EXPECTED = Path(__file__).parent / "expected"
NEW = ".peftc."
QUICK = ("llama", "bloom")
ONLY_FLOAT32 = ("fnet",)
"""Families with an operator that the CPU has in no other dtype."""


def exceptions() -> dict[str, str]:
    """Family to cause, from the table in the documentation."""
    text = (ROOT / "docs" / "identity.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line[:3] == "| `"]
    return {family.strip(" `"): cause.strip() for family, cause in rows}


EXCEPTIONS = exceptions()


# --- models and inputs ----------------------------------------------------------------


def expectation(family: str) -> str:
    return (EXPECTED / f"{family}.sites").read_text(encoding="utf-8")


def base_of(family: str) -> Any:
    """A model with random norms and biases, in training if that can be traced."""
    made = model(family, device="cpu").float()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise)
    made.requires_grad_(True)  # some keep parts of theirs frozen
    return made.train("! train " not in expectation(family))


def inputs(family: str, made: Any) -> dict[str, Any]:
    """Random tokens; the first sample of each batch has padding on the left."""
    case = CASES[family]
    given = dict(example_inputs(made, case.inputs(made) if case.inputs else None))
    generator = torch.Generator().manual_seed(2)
    accepted = inspect.signature(made.forward).parameters
    for name, value in list(given.items()):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            given[name] = torch.randn(value.shape, generator=generator)
        mask = name.replace("input_ids", "attention_mask")
        if mask != name and mask in accepted and not case.inputs:
            given[name] = torch.randint(3, 90, value.shape, generator=generator)
            given[mask] = torch.ones_like(value)
            given[mask][0, :2] = 0
    return given


def compiled(base: Any, backend: str = "plain") -> Any:
    """A copy with a method at every site; a tied head is left out.

    It is compiled in evaluation, for which other tests have found its view; what is
    found in training `test_sites.py` says.
    """
    made = copy.deepcopy(base).eval()
    names = (name for name, _ in made.named_parameters(remove_duplicate=False))
    untied = len(list(names)) == len(list(made.parameters()))
    linears = f"{LINEARS}, head?" if untied else LINEARS
    peftc.compile(made, SPEC.format(linears=linears), backend=backend)
    return made.requires_grad_(True).train(base.training)


def captured(base: Any) -> Callable[..., Any]:
    """The forward as torch.compile captures it, run as it is."""

    def forward(**given: Any) -> Any:
        return base(**given)

    code, known = forward.__code__.replace(), forward.__globals__
    fresh = FunctionType(code, known, "forward", None, forward.__closure__)
    plain_buffers(base)
    run = torch.compile(fresh, backend=lambda gm, _: gm.forward, fullgraph=True)

    def call(**given: Any) -> Any:
        with tracing():
            return run(**given)

    return call


# --- one step -----------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """What a run gave: outputs in order, and gradients of base parameters by path."""

    outputs: tuple[torch.Tensor, ...]
    gradients: Mapping[str, torch.Tensor]

    def differences(self, other: Numbers) -> list[str]:
        """Where two runs are not equal to the bit."""
        assert len(self.outputs) == len(other.outputs) > 0
        pairs = zip(self.outputs, other.outputs, strict=True)
        told = [f"output {i}" for i, two in enumerate(pairs) if not torch.equal(*two)]
        assert self.gradients.keys() == other.gradients.keys()
        for path, gradient in self.gradients.items():
            if not torch.equal(gradient, other.gradients[path]):
                told.append(path)
        return told


def numbers(run: Any, made: Any, given: Mapping[str, Any], train: bool) -> Numbers:
    """One forward, and in training the backward of a sum over all outputs."""
    made.zero_grad()
    torch.manual_seed(5)
    with torch.set_grad_enabled(train):
        output = run(**given)
    parts = output.to_tuple() if hasattr(output, "to_tuple") else output
    leaves = [leaf for leaf in tree_leaves(parts) if isinstance(leaf, torch.Tensor)]
    outputs = [leaf for leaf in leaves if leaf.is_floating_point()]
    if train:
        sums = [o * torch.linspace(-1, 1, o.numel()).view(o.shape) for o in outputs]
        torch.stack([one.sum() for one in sums if one.requires_grad]).sum().backward()
    own = ((n, p) for n, p in made.named_parameters() if NEW not in n)
    gradients = {n: p.grad.clone() for n, p in own if p.grad is not None}
    return Numbers(tuple(o.detach() for o in outputs), gradients)


def in_bfloat16(given: Mapping[str, Any]) -> dict[str, Any]:
    def cast(value: Any) -> Any:
        is_real = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(torch.bfloat16) if is_real else value

    return {name: cast(value) for name, value in given.items()}


def families() -> list[Any]:
    """Those whose forward can be traced."""
    return [
        pytest.param(family, marks=() if family in QUICK else (pytest.mark.slow,))
        for family in FAMILIES
        if "! eval " not in expectation(family)
    ]


@pytest.mark.parametrize("family", families())
def test_identity(family: str) -> None:
    base = base_of(family)
    given, made = inputs(family, base), compiled(base)
    mine = numbers(made, made, given, train=True)
    assert any(torch.any(one != 0) for one in mine.gradients.values())
    assert [n for n, p in made.named_parameters() if NEW in n and p.grad is None] == []
    eager = numbers(base, base, given, train=True)
    assert bool(mine.differences(eager)) is (family in EXCEPTIONS)
    run = captured(base)
    if family in QUICK or family in EXCEPTIONS:
        assert not mine.differences(numbers(run, base, given, train=True))

    if family in ONLY_FLOAT32:
        return
    given = in_bfloat16(given)
    for one in (base, made):
        one.to(torch.bfloat16).eval()
    mine = numbers(made, made, given, train=False)
    run = run if family in EXCEPTIONS else base
    assert not mine.differences(numbers(run, base, given, train=False))


@pytest.mark.parametrize("family", ["llama", "bloom", "gpt2", "bert", "t5"])
def test_planned_steps(family: str) -> None:
    """They add up the gradients of what several linears read in another order."""
    base = base_of(family)
    given, made = inputs(family, base), compiled(base, "eager")
    mine = numbers(made, made, given, train=True)
    eager = numbers(base, base, given, train=True)
    for one, other in zip(mine.outputs, eager.outputs, strict=True):
        assert torch.equal(one, other)
    assert mine.gradients.keys() == eager.gradients.keys()
    # Of a key's bias the gradient is zero but for rounding.
    largest = max(float(one.abs().max()) for one in eager.gradients.values())
    for path, gradient in eager.gradients.items():
        near = 1e-5 * float(gradient.abs().max()) + 1e-8 * largest
        torch.testing.assert_close(mine.gradients[path], gradient, rtol=0, atol=near)


def test_exceptions_are_families() -> None:
    assert set(EXCEPTIONS) <= set(FAMILIES)
    assert all(EXCEPTIONS.values())
