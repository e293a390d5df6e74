"""Generated functions of sites against torch's derivatives of the equation as written.

Every clause of the library at a linear or a value between layers is tried, at a site of
unequal sizes, and so are the definitions of tests/golden/programs and stacks of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import pytest
import torch

from peftc.codegen.torch_writer import NoSourceError
from peftc.expr.derivative import NoDerivativeError
from peftc.expr.dropout import Mask, in_training
from peftc.expr.evaluate import evaluate
from peftc.expr.grouped import group, site_names
from peftc.expr.joint import order_jointly
from peftc.expr.normal import concrete
from peftc.rewrite.torch_step import together
from tests.equations import CASES, Stack, stack
from tests.library import clauses, small_sites
from tests.numerics.test_joint import STACKS, TOLERANCE, slanted, with_places
from tests.numerics.test_programs import BATCH, TOKENS, given

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from peftc.rewrite.torch_step import TorchStep

SEED = 5
ACTIVE = ("x", "h", "u", "n")
"""Activations that a site may read."""

WITHOUT_FORM = frozenset({("gate", 1)})
"""Clauses of the library at linears that have no generated function: a mean over the
tokens of a sample tells tokens apart."""

WITHOUT_EDGE_FORM = frozenset({("gate", 3)})
"""Those at values between layers."""

Run: TypeAlias = "Callable[[Mapping[str, Tensor]], Tensor]"


def function(methods: Stack, biased: bool) -> TorchStep | None:
    try:
        program = order_jointly(methods.composed(biased), methods.env, biased)
        return together(program, frozenset(("bias",) * biased))
    except (NoDerivativeError, NoSourceError):
        return None


def compare(methods: Stack, biased: bool) -> bool:
    """Value and gradients, of all inputs and of each of them alone; False if there is
    no function."""
    made = function(methods, biased)
    if made is None:
        return False
    composed = methods.composed(biased)
    env = {"b": BATCH, "t": TOKENS, **methods.env}
    tensors = with_places(composed, given(composed, env, biased), env)
    trained = [d.name for d in composed.declarations if d.kind == "param"]
    wanted = [n for n in made.inputs if n in (*ACTIVE, *trained)]
    due, slopes = differentiated(written(methods, biased, env), tensors, wanted)

    def run(values: Mapping[str, Tensor]) -> Tensor:
        torch.manual_seed(SEED)
        found: Tensor = made(*(values[name] for name in made.inputs))
        return found

    for asked in (wanted, *([name] for name in wanted)):
        found, gradients = differentiated(run, tensors, asked)
        assert near(found, due)
        for name in asked:
            assert near(gradients[name], slopes[name]), name
    return True


def written(methods: Stack, biased: bool, env: Mapping[str, int]) -> Run:
    """The equation, in which what drops is drawn as the function draws it."""
    outputs = tuple(methods.composed(biased).outputs.values())
    (output,), masks = in_training(concrete(outputs, methods.env)[0])

    def run(tensors: Mapping[str, Tensor]) -> Tensor:
        torch.manual_seed(SEED)
        drawn = {mask.leaf.name: draw(mask, env) for mask in masks}
        return evaluate([output], {**tensors, **drawn}, env, training=True)[0]

    return run


def draw(mask: Mask, env: Mapping[str, int]) -> Tensor:
    shape = [axis.value(env) for axis in mask.leaf.axes]
    kept = torch.empty(shape, dtype=torch.bool).bernoulli_(1 - mask.p)
    return kept.double() / (1 - mask.p)


def differentiated(
    run: Run, tensors: Mapping[str, Tensor], wanted: Sequence[str]
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The value, and the gradients of a sum of it with weights, by name."""
    values = {n: t.detach().clone() for n, t in tensors.items()}
    leaves = [values[name].requires_grad_() for name in wanted]
    found = run(values)
    total = (found * slanted(found.detach())).sum()
    gradients = torch.autograd.grad(total, leaves, allow_unused=True)
    return found.detach(), {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for name, leaf, gradient in zip(wanted, leaves, gradients, strict=True)
    }


def near(got: Tensor, due: Tensor) -> bool:
    """Equal but for rounding."""
    scale = due.abs().max().clamp(min=1e-30)
    far = (got - due).abs().max()
    return got.shape == due.shape and bool(far <= TOLERANCE * scale)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("name", "number"), clauses("linear"))
def test_every_method_of_the_library(name: str, number: int, biased: bool) -> None:
    found = [compare(site, biased) for site in small_sites(name, number)]
    assert any(found) is ((name, number) not in WITHOUT_FORM)


@pytest.mark.parametrize(("name", "number"), clauses("hidden"))
def test_every_method_between_layers(name: str, number: int) -> None:
    found = [compare(site, False) for site in small_sites(name, number)]
    assert any(found) is ((name, number) not in WITHOUT_EDGE_FORM)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", STACKS, ids="+".join)
def test_stacks(names: Sequence[str], biased: bool) -> None:
    """A gate of a sample is a mean over its tokens: that has no function."""
    methods = stack(names)
    if methods.kind == "linear":
        assert compare(methods, biased) is ("unipelt_lora" not in names)


@pytest.mark.parametrize("name", [n for n in CASES if stack([n]).kind == "linear"])
def test_definitions(name: str) -> None:
    compare(stack([name]), True)


GROUPS = (
    ("lora", "lora"),
    ("lora", "dora", "ia3"),
    ("ia3", "hra", "lora"),
    ("krona", "oft", "loha"),
    ("ia3_in", "lora_dropout", "vera", "lora_dropout"),
)
"""Sites of one input that are one step."""


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("names", GROUPS, ids="+".join)
def test_groups(names: Sequence[str], biased: bool) -> None:
    """As the sites one after the other, with one gradient of what they share."""
    alone = [function(stack([name]), biased) for name in names]
    assert all(alone)
    made = [one for one in alone if one is not None]
    biases = site_names("bias", len(names)) if biased else ()
    whole = together(group([one.program for one in made]), frozenset(biases))
    tensors = shared([given_to(name, biased) for name in names])

    def apart(values: Mapping[str, Tensor]) -> Tensor:
        torch.manual_seed(SEED)
        return torch.cat(
            [
                one(*(values[name_at(n, k)] for n in one.inputs))
                for k, one in enumerate(made, 1)
            ]
        )

    def as_one(values: Mapping[str, Tensor]) -> Tensor:
        torch.manual_seed(SEED)
        return torch.cat(whole(*(values[name] for name in whole.inputs)))

    wanted = [n for n, t in tensors.items() if t.is_floating_point()]
    wanted = [n for n in wanted if n == "x" or n in {*whole.given}]
    due, slopes = differentiated(apart, tensors, wanted)
    found, gradients = differentiated(as_one, tensors, wanted)
    assert near(found, due)
    assert len(wanted) > len(names)
    for name in wanted:
        assert near(gradients[name], slopes[name]), name


def given_to(name: str, biased: bool) -> Mapping[str, Tensor]:
    """What the site's equation reads."""
    methods = stack([name])
    composed = methods.composed(biased)
    env = {"b": BATCH, "t": TOKENS, **methods.env}
    return with_places(composed, given(composed, env, biased), env)


def name_at(name: str, site: int) -> str:
    return name if name == "x" else f"{name}@{site}"


def shared(every: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What a group reads: x once."""
    return {
        name_at(name, site): tensor
        for site, tensors in enumerate(every, 1)
        for name, tensor in tensors.items()
    }
