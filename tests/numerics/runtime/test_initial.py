"""Initial values: their distributions, and what they depend on."""

from __future__ import annotations

import math

import pytest
import torch

from peftc.plan.types import AddedTensor
from peftc.runtime.initial import initial_value

KEY = "model.layers.0.self_attn.q_proj:q"


def value(
    init: str, *shape: int, seed: int = 0, key: str = KEY, name: str = "m.A"
) -> torch.Tensor:
    tensor = AddedTensor(name, shape, "param", init)
    return initial_value(tensor, seed, key, torch.float32)


def test_kaiming_is_torchs_with_its_usual_slope() -> None:
    drawn = value("kaiming(5)", 64, 300)
    bound = math.sqrt(6 / (6 * 300))
    assert drawn.abs().max() <= bound
    assert drawn.abs().max() > 0.99 * bound
    reference = torch.empty(64, 300)
    torch.nn.init.kaiming_uniform_(reference, a=math.sqrt(5))
    assert abs(drawn.std() / reference.std() - 1) < 0.02


def test_glorot_is_torchs_for_every_matrix_of_a_stack() -> None:
    drawn = value("glorot(1.5)", 4, 64, 300)
    bound = 1.5 * math.sqrt(6 / 364)
    assert drawn.abs().max() <= bound
    assert drawn.abs().max() > 0.99 * bound
    reference = torch.empty(64, 300)
    torch.nn.init.xavier_uniform_(reference, gain=1.5)
    assert abs(drawn.std() / reference.std() - 1) < 0.02
    assert not value("glorot(0)", 64, 300).any()


def test_normal_and_uniform() -> None:
    normal = value("normal(0.02)", 200, 200)
    assert abs(normal.std() / 0.02 - 1) < 0.02
    assert abs(normal.mean()) < 4e-4
    uniform = value("uniform(-0.5, 1.5)", 200, 200)
    assert -0.5 <= uniform.min() < -0.49
    assert 1.49 < uniform.max() < 1.5
    assert abs(uniform.mean() - 0.5) < 0.01


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (3, 4, 6)])
@pytest.mark.parametrize("init", ["orthogonal", "orthogonal()"])
def test_orthogonal(shape: tuple[int, ...], init: str) -> None:
    drawn = value(init, *shape).double()
    rows, columns = shape[-2:]
    gram = drawn @ drawn.mT if rows <= columns else drawn.mT @ drawn
    eye = torch.eye(min(rows, columns), dtype=torch.float64).expand_as(gram)
    torch.testing.assert_close(gram, eye, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("init", "number"), [("0", 0), ("1", 1), ("-0.5", -0.5), ("1e-3", 1e-3)]
)
def test_numbers(init: str, number: float) -> None:
    assert torch.equal(value(init, 2, 3), torch.full((2, 3), number))


@pytest.mark.parametrize("init", ["kaiming(5)", "normal(1)", "uniform(0, 1)"])
def test_it_depends_on_seed_site_and_name_alone(init: str) -> None:
    first = value(init, 3, 4)
    torch.manual_seed(77)
    torch.rand(3)
    assert torch.equal(value(init, 3, 4), first)
    assert not torch.equal(value(init, 3, 4, seed=1), first)
    assert not torch.equal(value(init, 3, 4, key=KEY.replace("0", "1")), first)
    assert not torch.equal(value(init, 3, 4, name="m#2.A"), first)
    assert not torch.equal(value(init, 3, 4, name="m.B"), first)


def test_drawing_leaves_the_global_random_state() -> None:
    before = torch.get_rng_state()
    value("normal(1)", 5, 5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_shared_tensor_is_the_same_at_every_site() -> None:
    shared = AddedTensor("m.A", (3, 4), "buffer", "normal(1)", shared="m:1/A/3x4")
    at = [initial_value(shared, 0, key, torch.float32) for key in (KEY, "x:v")]
    assert torch.equal(*at)


def test_it_is_drawn_in_float32_and_then_cast() -> None:
    tensor = AddedTensor("m.A", (3, 4), "param", "normal(1)")
    wide = initial_value(tensor, 0, KEY, torch.float32)
    for dtype in (torch.bfloat16, torch.float64):
        assert torch.equal(initial_value(tensor, 0, KEY, dtype), wide.to(dtype))
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(initial_value(tensor, 0, KEY, torch.float32), wide)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_expression_is_evaluated_and_broadcast() -> None:
    tensor = AddedTensor("m.m", (4,), "param", "norm(W, in)")

    def two(one: AddedTensor, stream: torch.Generator) -> torch.Tensor:
        return torch.tensor(2.0, dtype=torch.double)

    given = initial_value(tensor, 0, KEY, torch.float32, two)
    assert torch.equal(given, torch.full((4,), 2.0))
    with pytest.raises(ValueError, match=r"norm\(W, in\)"):
        initial_value(tensor, 0, KEY, torch.float32)
