"""What the order must be, whatever it costs; goldens show the rest."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from peftc.codegen.text import parse_program, program_text, torch_text
from peftc.expr import ir
from peftc.expr.available import Available
from peftc.expr.compose import Composed, compose
from peftc.expr.contract import Search
from peftc.expr.cost import Machine, Measure
from peftc.expr.equation import Equation
from peftc.expr.normal import flatten
from peftc.expr.order import Planner, order
from peftc.expr.places import HIDDEN, LINEAR
from peftc.expr.program import Program, Step
from peftc.expr.sizes import Size
from tests.equations import CASES, case, define, gated, instance, numbers, read, stack

SITE = {"out": 512, "in": 384, "hidden": 384}


def ordered(text: str, biased: bool = True, **knobs: int) -> Program:
    """The program of a method at a linear of 512 x 384."""
    made = define(text, {**SITE, **knobs})
    composed = compose(made.kind, [made.equation], biased)
    (target,) = composed.outputs
    return order(composed, target, made.env, biased)


def lines(program: Program) -> list[str]:
    """The steps as text."""
    return program_text(program).splitlines()[1 : 1 + len(program.steps)]


# --- the base product -------------------------------------------------------------


def linear(body: str) -> str:
    return f"method m(r = 4) on linear {{ {body} }}"


LORA = "param A[r, in] ~ normal(1), B[out, r] = 0"


@pytest.mark.parametrize(
    "body", ["W' = W + (0.5) * B @ A", "y' = y + 0.5 * B(A(x))"], ids=["W'", "y'"]
)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("size", [16, 64, 4096])
def test_lora_is_two_products_added_to_y(body: str, biased: bool, size: int) -> None:
    made = define(linear(f"{LORA} {body}"), {"out": size, "in": 2 * size})
    composed = compose("linear", [made.equation], biased)
    program = order(composed, "y", made.env, biased)
    assert lines(program) == [
        "%0[*, 4] = linear(x, m.A)",
        f"%1[*, {size}] = linear(%0, m.B)",
        f"%2[*, {size}] = add(y, %1; 1, 0.5)",
    ]
    assert [one.name for one in program.inputs] == ["x", "y", "m.A", "m.B"]


def test_output_scale_is_one_product_with_y() -> None:
    program = ordered(linear("param l[out] = 1 y' = l * y"))
    assert lines(program) == ["%0[*, 512] = ein(y, m.l; *i,i->*i)"]


def test_weight_and_bias_scaled_alike_are_y_scaled() -> None:
    both = "param l[out] = 1 W' = diag(l) @ W bias' = l * bias"
    assert lines(ordered(linear(both))) == ["%0[*, 512] = ein(y, m.l; *i,i->*i)"]


def test_rewritten_input_goes_through_the_base() -> None:
    program = ordered(linear("param l[in] = 1 x' = l * x"))
    assert lines(program)[-1] == "%1[*, 512] = base(%0)"
    assert [one.name for one in program.inputs] == ["x", "m.l"]


def test_without_its_bias_the_product_stands_alone() -> None:
    scaled = linear("param l[out] = 1 W' = diag(l) @ W")
    assert lines(ordered(scaled)) == [
        "%0[*, 512] = product(x)",
        "%1[*, 512] = ein(%0, m.l; *i,i->*i)",
        "%2[*, 512] = add(%1, bias; 1, 1)",
    ]
    assert lines(ordered(scaled, biased=False)) == [
        "%0[*, 512] = ein(y, m.l; *i,i->*i)"
    ]


def test_the_base_product_is_never_made_twice() -> None:
    both = linear("param l[out] = 0 y' = y + l * W(x)")
    assert lines(ordered(both))[0] == "%0[*, 512] = add(y, bias; 1, -1)"
    for names in itertools.permutations(("dora", "ia3", "lora"), 2):
        site = gated(names, "sizes")
        program = order(site.composed(True), "y", site.env, True)
        assert not any(step.op in ("base", "product") for step in program.steps)


def test_a_gate_cancels_what_it_does_not_change() -> None:
    site = gated(["lora"], "sizes")
    program = order(site.composed(True), "y", site.env, True)
    assert [step.op for step in program.steps].count("linear") == 2
    assert program.steps[-1].args == ("y", "%5")


def test_nothing_left_is_the_input_itself() -> None:
    program = ordered(linear("param d[out] = 0 y' = y + d - d"))
    assert (program.steps, program.result) == ((), "y")


# --- sums, copies, opaque functions -----------------------------------------------


@pytest.mark.parametrize("name", [n for n in CASES if n not in ("hira", "full")])
def test_no_copy_of_the_weight(name: str) -> None:
    """Nothing made of W in parameter space is as large as W."""
    given, _ = numbers(name, "sizes")
    made = instance(read(name), given, f"{name}.")
    for biased in (True, False):
        composed = compose(made.kind, [made.equation], biased)
        for target in composed.outputs:
            check_no_copy(order(composed, target, made.env, biased))


def check_no_copy(program: Program) -> None:
    made_of_weight = {"W"}
    size = max((math.prod(i.shape) for i in program.inputs if i.name == "W"), default=0)
    for step in program.steps:
        if not step.tokens and made_of_weight & set(step.args):
            made_of_weight.add(step.out)
            assert math.prod(step.shape) < size / 2


def test_sums_are_applied_rather_than_built_or_distributed() -> None:
    """Two reflections one after the other: a base product, no matrix of [in, in]."""
    (program,) = (order(stack(["hra"], "sizes").composed(True), "y", SIZES, True),)
    assert [s.op for s in program.steps].count("base") == 1
    assert max(math.prod(s.shape) for s in program.steps if not s.tokens) <= 4096


SIZES = {"out": 4096, "in": 4096}


def test_frozen_factors_do_not_take_the_gradient_of_trained_ones() -> None:
    """Scaling a frozen matrix would need the gradient of the whole matrix."""
    site = stack(["vera"], "sizes")
    program = order(site.composed(True), "y", site.env, True)
    assert all(step.tokens for step in program.steps)


def test_dropout_is_opaque() -> None:
    text = linear(f"{LORA} y' = y + drop(B(A(drop(x, 0.5))), 0.25)")
    assert [line.split(" = ")[1] for line in lines(ordered(text))] == [
        "call drop(x; 0.5)",
        "linear(%0, m.A)",
        "linear(%1, m.B)",
        "call drop(%2; 0.25)",
        "add(y, %3; 1, 1)",
    ]


def test_detach_hides_what_is_inside() -> None:
    text = linear(f"{LORA} y' = y + B(A(x)) - detach(B(A(x)))")
    assert [s.op for s in ordered(text).steps] == ["linear", "linear", "call", "add"]


def test_equal_values_are_made_once() -> None:
    """Here also with axes merged: A(x) is read whole and in blocks."""
    program = ordered(
        "method m(d = 12) on hidden {"
        " param D[d, hidden] ~ normal(1), U[hidden, d] = 0"
        " param P[3, 4] = 0, Q[hidden/3, d/4] = 0"
        " h' = h + U(D(h)) + kron(P, Q)(D(h)) }"
    )
    assert next(s.args for s in program.steps if s.op == "linear") == ("h", "m.D")
    readers = [s for s in program.steps if "h" in s.args]
    assert [s.op for s in readers] == ["linear", "add"]


def test_samples_and_tokens_apart() -> None:
    program = ordered(linear("param w[in] ~ normal(1) y' = y * mean(w(x), t)"))
    assert program.separate_tokens
    specs = [step.spec for step in program.steps if step.op == "ein"]
    assert specs == ["bti,i->bt", "bt->b", "b,->b", "bti,b->bti"]
    assert (
        Step("%2", "call", ("x",), (), False, fn="count", attrs=("t",)) in program.steps
    )


def test_what_varies_over_no_token_is_kept_without_tokens() -> None:
    program = ordered(linear("param d[out] = 0 y' = y + tanh(d) * 2"))
    assert [(s.op, s.tokens) for s in program.steps] == [("map", False), ("add", True)]


def test_views_that_do_not_nest_cut_the_product() -> None:
    """360 as 8 x 45 and as 60 x 6: x is turned, and then the other is applied."""
    sizes = {"out": 512, "in": 360}
    kron = define(
        "method m(a = 8, c = 8) on linear {"
        " param A[a, c] ~ normal(1), B[out/a, in/c] = 0  W' = W + kron(A, B) }",
        sizes,
        "k.",
    )
    turn = define(
        "method m(bs = 6) on linear {"
        " param Q[in/bs, bs, bs] = 0"
        " W' = W @ blockdiag[k: in/bs](cayley(Q[k])) }",
        sizes,
        "q.",
    )
    composed = compose("linear", [kron.equation, turn.equation], True)
    program = order(composed, "y", {**kron.env, **turn.env}, True)
    made = [math.prod(step.shape) for step in program.steps if not step.tokens]
    assert max(made) < 512 * 360 / 8


# --- the search -------------------------------------------------------------------


def brute_force(search: Search, subset: int) -> float:
    """The cost of the best tree, over all trees."""
    if not subset & (subset - 1):
        return search.choices[subset].cost
    penalty = search._penalty(subset)
    best = float("inf")
    left = (subset - 1) & subset
    while left:
        right = subset ^ left
        step = search._pair(left, right, penalty).cost
        inner = search.choices[left].cost + search.choices[right].cost
        below = brute_force(search, left) + brute_force(search, right)
        best = min(best, step - inner + below)
        left = (left - 1) & subset
    return best


def test_search_is_exact() -> None:
    names = [("a", "xi"), ("b", "ij"), ("c", "jk"), ("d", "kx"), ("e", "ik")]
    size = {"x": 100, "i": 7, "j": 50, "k": 3}
    leaves = [ir.leaf(n, "param", [size[c] for c in row]) for n, row in names]
    node = ir.ein(leaves, [row for _, row in names], "j")
    (term,) = flatten(node)
    search = Search(term, Planner(Measure(Machine())))
    assert search.cost == pytest.approx(brute_force(search, search.full), rel=1e-12)


def test_many_factors_are_still_ordered() -> None:
    leaves = [ir.leaf(f"m{i:02}", "param", (8, 8)) for i in range(14)]
    node = ir.ein(leaves, [(i, i + 1) for i in range(14)], (0, 14))
    (ordered_node,) = Planner(Measure(Machine())).plan([node])
    assert all(len(n.operands) <= 2 for n in ir.walk(ordered_node))


def test_available_values_are_found_under_other_labels() -> None:
    table = Available()
    x = ir.leaf("x", "input", ("b", 6, 4))
    flat = ir.view(x, (Size.of("b"), Size.of(24)))
    a = ir.leaf("a", "param", (5, 24))
    made = ir.ein((flat, a), ("bi", "oi"), "bo")
    table.remember([(flat, (0, 1)), (a, (2, 1))], made, (0, 2))
    assert table.find([(a, (9, 8)), (flat, (7, 8))], (7, 9)) == (made, (7, 9))
    split = ir.view(a, map(Size.of, (5, 6, 4)))
    found = table.find([(x, (0, 1, 2)), (split, (3, 1, 2))], (3, 0))
    assert found == (made, (0, 3))
    assert table.find([(x, (0, 1, 2)), (split, (3, 1, 2))], (3, 0, 2)) is None


# --- promises of the whole --------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_planning_is_fast(name: str) -> None:
    made = case(name, "sizes")
    composed = compose(made.kind, [made.equation], True)
    target = next(iter(composed.outputs))
    order(composed, target, made.env, True)
    best = min(_seconds(composed, target, dict(made.env)) for _ in range(3))
    assert best < 0.3


def _seconds(composed: Composed, target: str, env: dict[str, int]) -> float:
    start = time.process_time()
    order(composed, target, env, True)
    return time.process_time() - start


@pytest.mark.parametrize("name", ["lora", "ssf", "ia3", "ia3_in", "adapter", "oft"])
def test_a_hundred_methods_at_one_site(name: str) -> None:
    """Nothing grows with the power of their number, nor recurs as deep."""
    site = stack([name] * 100)
    composed = site.composed(True)
    (target,) = composed.outputs
    assert _seconds(composed, target, dict(site.env)) < 10


DETERMINED = """
from tests.equations import stack
from peftc.expr.order import order
from peftc.codegen.text import program_text
texts = {{}}
for names in {names}:
    site = stack(names.split("+"), "sizes")
    texts[names] = program_text(order(site.composed(True), "y", site.env, True))
print("".join(texts[names] for names in sorted(texts)))
"""


def test_one_text_whatever_was_compiled_before() -> None:
    names = ["dora+lora", "krona+oft", "hra", "loha+gated_lora"]
    texts = {
        subprocess.run(
            [sys.executable, "-c", DETERMINED.format(names=order_of_work)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
        ).stdout
        for seed, order_of_work in enumerate((names, names[::-1]))
    }
    assert len(texts) == 1
    assert texts.pop().count("program y") == 4


def test_text_round_trips_with_all_that_a_step_can_have() -> None:
    step = Step("%0", "call", ("a",), (), True, fn="f", attrs=(1, 1.0, "a; b, c", 1e-9))
    program = Program(
        "y",
        (),
        (
            step,
            Step("%1", "add", ("%0",), (2,), False, coefs=(1e22,)),
            Step("%2", "call", (), (3,), False, fn="g"),
        ),
        "%2",
        separate_tokens=True,
        flops=(1, 2),
        bytes=(3, 4),
    )
    assert parse_program(program_text(program)) == program


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("%1[*, 512] =", "%1 =", "not a line of a program: %1 ="),
        ("return %2", "%2", "not a line of a program: %2"),
        ("= linear(", "= exec(", "not an operation: exec"),
        ("; 0.5)", "; " + "[" * 100_000 + ")", "could not convert"),
        ("; 0.5)", "; 1 2)", "no attributes of a step"),
        ("512", "x", "invalid literal"),
    ],
)
def test_text_that_is_no_program(old: str, new: str, message: str) -> None:
    text = program_text(
        ordered(linear("param D[out, in] = 0 y' = y + D(drop(x, 0.5))"))
    )
    assert old in text
    with pytest.raises(ValueError, match=message):
        parse_program(text.replace(old, new))


def test_names_of_the_torch_function_are_different() -> None:
    edge = HIDDEN["h"]
    one, two = (ir.leaf(n, "param", ("hidden",)) for n in ("a.b", "a_b"))
    rule = ir.ein((edge, one, two), ("bth", "h", "h"), "bth")
    composed = compose("hidden", [Equation((), {"h": rule}, (), {})], True)
    text = torch_text(order(composed, "h", SITE, True), "f")
    assert text.startswith("def f(h, a_b, a_b_):\n")
    assert LINEAR["W"].name not in text
