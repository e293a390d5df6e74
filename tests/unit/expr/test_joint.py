"""What joint plans promise beside their numbers."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from peftc.codegen.joint_text import joint_text, parse_joint
from peftc.expr import ir
from peftc.expr.compose import Composed, compose
from peftc.expr.cost import Machine
from peftc.expr.derivative import sums_of_slopes
from peftc.expr.elementwise_derivatives import DERIVATIVES
from peftc.expr.joint import (
    StoredSumError,
    _cheapest,
    _check_stored_sums,
    order_jointly,
    order_losses,
)
from peftc.expr.order import MACHINE
from peftc.expr.places import HIDDEN
from peftc.expr.sizes import Size
from tests.equations import CASES, case, define

if TYPE_CHECKING:
    from peftc.expr.joint_program import JointProgram

SITE = {"out": 512, "in": 384, "hidden": 384}
LORA = "param A[r, in] ~ normal(1), B[out, r] = 0"


def planned(body: str, biased: bool = True, machine: Machine = MACHINE) -> JointProgram:
    made = define(f"method m(r = 4) on linear {{ {body} }}", SITE)
    composed = compose("linear", [made.equation], biased)
    return order_jointly(composed, made.env, biased, machine)


def gradients(program: JointProgram) -> list[str]:
    return [name for name, _ in program.backward.results]


# --- what is planned once ---------------------------------------------------------


@pytest.mark.parametrize("biased", [True, False])
def test_equal_functions_have_one_plan(biased: bool) -> None:
    """The table is by normal form: the same object comes back."""
    weight = planned(f"{LORA} W' = W + 0.5 * B @ A", biased)
    assert planned(f"{LORA} y' = y + 0.5 * B(A(x))", biased) is weight
    assert planned(f"{LORA} y' = y + 0.25 * B(A(x))", biased) is not weight


def test_other_sizes_and_other_machines_are_planned_anew() -> None:
    body = f"{LORA} W' = W + B @ A"
    small = replace(Machine(), tokens=1, batch=1)
    assert planned(body, machine=small) is not planned(body)
    assert planned(body, machine=small) is planned(body, machine=replace(small))


# --- what has no gradient -----------------------------------------------------------


def test_what_nothing_depends_on_has_no_gradient() -> None:
    program = planned("param l[out] = 1, d[out] = 0 y' = l * y + detach(d)")
    assert gradients(program) == ["x", "m.l"]
    assert gradients(planned("param l[out] = 1 y' = detach(l * y)")) == []


def test_activations_of_a_hidden_edge_have_gradients() -> None:
    made = define(
        "method m(d = 6) on hidden { param D[d, hidden] ~ normal(1), U[hidden, d] = 0"
        " h' = h + U(relu(D(u))) }",
        SITE,
    )
    composed = compose("hidden", [made.equation], True)
    assert gradients(order_jointly(composed, made.env, True)) == [
        "h",
        "u",
        "m.U",
        "m.D",
    ]


def test_a_site_without_terms_of_the_loss_has_none() -> None:
    made = define(f"method m(r = 4) on linear {{ {LORA} W' = W + B @ A }}", SITE)
    composed = compose("linear", [made.equation], True)
    assert order_losses(composed, made.env) is None


def test_a_buffer_gets_no_gradient() -> None:
    assert gradients(planned("buffer m[out, in] = 1 W' = m * W")) == ["x"]


# --- what is kept -------------------------------------------------------------------


def test_the_input_is_kept_rather_than_its_product_with_a_mask() -> None:
    program = planned(f"{LORA} y' = y + B(A(drop(x, 0.5)))")
    assert [mask.name for mask in program.masks] == ["mask"]
    assert [kept.name for kept in program.kept] == ["x", "%1"]
    assert program.again == ("%0",)


def test_a_function_is_done_again_rather_than_kept() -> None:
    program = planned(f"{LORA} y' = y + B(relu(A(x)))")
    assert [(kept.name, kept.bytes) for kept in program.kept] == [("x", 768), ("%0", 8)]
    assert program.again == ("%1",)


def test_what_only_samples_have_is_kept_for_each_of_them() -> None:
    program = planned("param w[in] ~ normal(1) y' = y * sum(w(x), t)")
    (scale,) = [kept for kept in program.kept if kept.tokens == "b"]
    assert (scale.shape, scale.bytes) == ((), 2)


# --- rounding -----------------------------------------------------------------------


def test_sums_in_derivatives_are_told_from_those_of_the_equation() -> None:
    a = ir.add(
        (ir.leaf("a", "param", (9,)), ir.literal(1, ir.leaf("a", "param", (9,)).axes))
    )
    y = ir.apply_map("sigmoid", a)
    slope = DERIVATIVES["sigmoid"](a, y)
    (found,) = sums_of_slopes([y])
    assert found in ir.walk(slope)
    assert found is not a


def test_a_derivative_is_made_before_it_is_multiplied() -> None:
    """1 - tanh^2 is not distributed over the product: both terms would cancel late."""
    program = planned("param D[out, in] = 0 W' = W + tanh(D)")
    steps = program.backward.steps
    (slope,) = [s for s in steps if s.op == "add" and s.coefs in ((1, -1), (-1, 1))]
    assert slope.shape == (512, 384)
    assert not any(
        s.op == "add" and s is not slope and s.shape == slope.shape for s in steps
    )


def test_a_function_of_a_sum_with_the_weight_has_no_other_form() -> None:
    program = planned("param D[out, in] = 0 W' = tanh(W + D)")
    assert [step.op for step in program.forward.steps][:2] == ["add", "map"]


def test_a_sum_with_the_weight_is_refused_and_a_scaled_weight_is_not() -> None:
    weight, delta = ir.leaf("W", "weight", (6, 4)), ir.leaf("d", "param", (6, 4))
    scale = ir.leaf("m", "param", (6,))
    scaled = ir.add((ir.ein((weight, scale), ("oi", "o"), "oi"),), (2.0,))
    _check_stored_sums([scaled, ir.apply_map("tanh", ir.add((weight, delta)))])
    for copy in (weight, scaled, ir.view(weight, (Size.of(24),))):
        one = ir.view(delta, copy.axes)
        with pytest.raises(StoredSumError):
            _check_stored_sums([ir.add((copy, one))])


# --- cost and time ------------------------------------------------------------------


def test_a_machine_is_written_and_changed() -> None:
    machine = Machine()
    assert machine.text().startswith("matrix=6e+14 vector=4e+13 bandwidth=2.8e+12 ")
    other = machine.changed("bandwidth=1e11 tokens=64")
    assert other == replace(machine, bandwidth=1e11, tokens=64)
    assert machine.changed(other.text()) == other


@pytest.mark.parametrize(
    "text", ["speed=1", "tokens=0", "tokens", "tokens=x", "batch=1.5"]
)
def test_what_is_no_number_of_a_machine(text: str) -> None:
    with pytest.raises(ValueError, match=f"no number of a machine: {text}"):
        Machine().changed(text)


@pytest.mark.parametrize("size", [16, 192, 4096])
def test_plans_that_hardly_differ_keep_small_factors_apart(size: int) -> None:
    made = define(f"method m(r = 4) on linear {{ {LORA} W' = W + B @ A }}", SITE)
    sizes = {**made.env, "out": size, "in": size}
    composed = compose("linear", [made.equation], True)
    program = order_jointly(composed, sizes, True)
    assert [s.op for s in program.forward.steps] == ["linear", "linear", "add"]


def test_the_machine_decides() -> None:
    """Where only bytes cost, reading a large matrix twice is not worth the flops."""
    body = f"{LORA} y' = y + B(A(x))"
    slow = planned(body, machine=Machine().changed("bandwidth=1e9"))
    assert slow.microseconds > 100 * planned(body).microseconds


@pytest.mark.parametrize("name", CASES)
def test_planning_is_fast(name: str) -> None:
    made = case(name, "sizes")
    composed = compose(made.kind, [made.equation], True)
    assert min(_seconds(composed, dict(made.env)) for _ in range(2)) < 0.5


def _seconds(composed: Composed, env: dict[str, int]) -> float:
    _cheapest.cache_clear()
    start = time.process_time()
    order_jointly(composed, env, True)
    return time.process_time() - start


# --- text ---------------------------------------------------------------------------


def test_text_round_trips_where_a_result_is_given() -> None:
    rule = ir.add((HIDDEN["h"],))
    composed = Composed("hidden", {"h": rule}, (), (), {})
    program = order_jointly(composed, SITE, True)
    assert (program.forward.results, program.backward.results) == (
        (("h", "h"),),
        (("h", "dh"),),
    )
    assert parse_joint(joint_text(program)) == program


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("joint y", "program y"),
        ("keep x[", "keep x("),
        ("machine ", ""),
        ("give x", "x"),
    ],
)
def test_text_that_is_no_joint_program(old: str, new: str) -> None:
    text = joint_text(planned(f"{LORA} y' = y + B(A(x))"))
    assert old in text
    with pytest.raises(ValueError, match="not a line of a"):
        parse_joint(text.replace(old, new))
