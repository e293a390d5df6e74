"""Joint programs against torch's derivatives of the equation as it was written.

Every method of the library is tried where it has a clause for a kind of site, at a site
of unequal sizes, and so are the definitions of tests/golden/programs and stacks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from peftc.expr import ir
from peftc.expr.cost import has_tokens
from peftc.expr.derivative import WITHOUT, NoDerivativeError
from peftc.expr.distributions import PLACES
from peftc.expr.dropout import in_training
from peftc.expr.evaluate import evaluate, run_joint
from peftc.expr.ir import Call
from peftc.expr.joint import order_jointly, order_losses
from peftc.expr.normal import concrete
from tests.equations import CASES, Stack, gated, stack
from tests.library import SIZES, clauses, small_sites
from tests.numerics.test_programs import BATCH, TOKENS, given, tensors_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from peftc.expr.compose import Composed
    from peftc.expr.ir import Node
    from peftc.expr.joint_program import JointProgram

torch.set_num_threads(1)

STACKS = (
    ("lora", "ia3"),
    ("ia3", "lora", "bitfit"),
    ("lora", "krona"),
    ("dora", "ia3"),
    ("krona", "lora", "ia3_in"),
    ("dora", "lora", "gated_lora"),
    ("oft", "lora_dropout", "ssf"),
    ("hra", "oft", "dora"),
    ("oft_left", "loha", "bitfit"),
    ("lora", "krona", "lora_dropout", "unipelt_lora"),
    ("lora_dropout", "lora_dropout"),
    ("adapter", "parallel", "loreft"),
    ("dora_full", "oft", "ia3_in"),
    ("vera", "miss", "phm"),
)
GATED = (("lora",), ("ia3",), ("ia3_in",), ("dora",), ("oft",), ("hra", "ia3_in"))
TOLERANCE = 1e-12


def check(methods: Stack, biased: bool) -> None:
    """Results and gradients of a site's program against those of its equation."""
    composed = methods.composed(biased)
    env = {"b": BATCH, "t": TOKENS, **methods.env}
    tensors = with_places(composed, given(composed, env, biased), env)
    program = order_jointly(composed, methods.env, biased)
    compare(program, tuple(composed.outputs.values()), tensors, env)


def with_places(
    composed: Composed, tensors: dict[str, Tensor], env: Mapping[str, int]
) -> dict[str, Tensor]:
    """The tensors, those that hold places of elements with places."""
    places = (d for d in composed.declarations if d.init.distribution in PLACES)
    for declared in places:
        shape = [axis.value(env) for axis in declared.axes]
        rows = torch.rand(shape, generator=torch.Generator().manual_seed(3))
        tensors[declared.name] = rows.argsort(-1)
    return tensors


def compare(
    program: JointProgram,
    outputs: Sequence[Node],
    tensors: dict[str, Tensor],
    env: Mapping[str, int],
    least: float = 1e-30,
) -> None:
    """A joint program against torch's derivatives of expressions.

    Errors are relative to the largest element, or to `least` where that is more.
    """
    written, masks = with_masks(outputs, env)
    tensors |= masks
    leaves = {name: tensors[name].requires_grad_() for name in differentiated(outputs)}
    values = evaluate(written, tensors, env, training=True)
    names = [name for name, _ in program.forward.results]
    adjoints = {f"d{n}": slanted(v) for n, v in zip(names, values, strict=True)}
    total = torch.stack(
        [(v * g).sum() for v, g in zip(values, adjoints.values(), strict=True)]
    ).sum()
    given = {name: value.detach() for name, value in tensors.items()}
    results, gradients = run_joint(program, given | adjoints)
    for name, value in zip(names, values, strict=True):
        assert near(results[name], value.detach(), least), name
    assert gradients.keys() <= leaves.keys()
    wanted = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    for name, gradient in zip(leaves, wanted, strict=True):
        none = torch.zeros_like(leaves[name]).detach()
        expected = none if gradient is None else gradient
        assert near(gradients.get(name, none), expected, least), name


def differentiated(outputs: Sequence[Node]) -> dict[str, None]:
    """The names of trained tensors and of activations."""
    leaves = [n for n in ir.walk(*outputs) if isinstance(n, ir.Leaf)]
    active = [n for n in leaves if n.kind == "input" and has_tokens(n)]
    trained = [n for n in leaves if n.kind == "param"]
    return dict.fromkeys(n.name for n in (*active, *trained) if n.name != "real")


def near(one: Tensor, other: Tensor, least: float) -> bool:
    """Equal but for rounding; rows of an attention that do not vary are given once."""
    if one.dim() < other.dim():
        other = other[(0, 0)] if one.dim() == other.dim() - 2 else other[:, 0]
    scale = other.abs().max().clamp(min=least)
    return bool((one - other).abs().max() <= TOLERANCE * scale)


def slanted(value: Tensor) -> Tensor:
    """An adjoint of which no two elements are equal."""
    return torch.linspace(-1, 1.5, value.numel(), dtype=value.dtype).view_as(value)


def with_masks(
    outputs: Sequence[Node], env: Mapping[str, int]
) -> tuple[Sequence[Node], dict[str, Tensor]]:
    """Outputs whose dropout multiplies with given masks, if there is any."""
    sizes = {name: value for name, value in env.items() if name not in ("b", "t")}
    values, masks = in_training(concrete(outputs, sizes)[0])
    if not masks:
        return outputs, {}
    stream = torch.Generator().manual_seed(7)
    drawn = {}
    for mask in masks:
        shape = [axis.value(env) for axis in mask.leaf.axes]
        kept = torch.rand(shape, generator=stream, dtype=torch.float64) >= mask.p
        drawn[mask.leaf.name] = kept.double() / (1 - mask.p)
    return values, drawn


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("name", "number"), clauses("linear"))
def test_every_method_at_a_linear(name: str, number: int, biased: bool) -> None:
    for site in small_sites(name, number):
        check(site, biased)


@pytest.mark.parametrize(
    ("name", "number"), clauses("hidden", "norm", "attention", "input")
)
def test_every_method_elsewhere(name: str, number: int) -> None:
    for site in small_sites(name, number):
        composed = site.composed(True)
        used = {
            n.fn for n in ir.walk(*composed.outputs.values()) if isinstance(n, Call)
        }
        if used & WITHOUT.keys() - {"drop"}:
            with pytest.raises(NoDerivativeError):
                order_jointly(composed, site.env, True)
        else:
            check(site, True)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_every_definition(name: str, biased: bool) -> None:
    check(stack([name]), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_several_at_one_site(names: tuple[str, ...], biased: bool) -> None:
    check(stack(names), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", GATED, ids="+".join)
def test_in_a_gate(names: tuple[str, ...], biased: bool) -> None:
    check(gated(names), biased)


@pytest.mark.parametrize(("name", "number"), clauses(*SIZES))
def test_terms_of_the_loss(name: str, number: int) -> None:
    for site in small_sites(name, number):
        composed = site.composed(True)
        env = {"b": BATCH, "t": TOKENS, **site.env}
        program = order_losses(composed, site.env)
        assert (program is None) == (not composed.losses)
        if program:
            tensors = with_places(composed, tensors_for(composed.losses, env), env)
            compare(program, composed.losses, tensors, env)
