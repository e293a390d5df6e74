"""The order of composition comes from the equations, not from the text."""

from __future__ import annotations

import pytest

from peftc.expr import ir
from peftc.expr.compose import DELTA, INPUT, OUTPUT, SHIFT, WEIGHT, class_of, compose
from peftc.expr.equation import Equation
from peftc.expr.normal import equal
from peftc.expr.places import HIDDEN, LINEAR, NORM
from tests.equations import CASES, case, define, gated, stack

SIZES = {"out": 15, "in": 21, "hidden": 21}

CLASSES = {
    DELTA: (
        *(
            "lora",
            "lora_dropout",
            "lora_xs",
            "vera",
            "adalora",
            "krona",
            "lokr",
            "loha",
        ),
        *(
            "phm",
            "miss",
            "gated_lora",
            "unipelt_lora",
            "pooled_lora",
            "mixture",
            "diffpruning",
            "fish",
        ),
        *("fourierft", "said"),
    ),
    INPUT: ("ia3_in", "oft", "hra"),
    WEIGHT: ("dora", "dora_full", "oft_left", "hira"),
    OUTPUT: ("ia3", "ssf", "renorm"),
    SHIFT: ("bitfit",),
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for n, names in CLASSES.items() for name in names]
)
def test_class_of_method(name: str, number: int) -> None:
    rules = case(name).equation.rules
    assert [class_of(target, rule) for target, rule in rules.items()] == [number]


def test_every_method_of_a_linear_has_its_class() -> None:
    named = {name for names in CLASSES.values() for name in names}
    assert named == {name for name in CASES if case(name).kind == "linear"}


@pytest.mark.parametrize(
    ("body", "number"),
    [
        ("param d[out] = 0 y' = y + d", SHIFT),
        ("param l[out] = 1 bias' = l * bias", WEIGHT),
        ("param l[in] = 1 W' = l * W", INPUT),
        ("param l[out] = 1 W' = l * W", WEIGHT),
        ("param P[in, in] = 0 W' = W + W @ P", INPUT),
        ("param P[out, in] = 0 W' = 2 * (W + P) - W", DELTA),
        ("param P[out, in] = 0 y' = W(x) + P(x) + bias", DELTA),
        ("param P[out, in] = 0 y' = y + P(x) * mean(y, out)", OUTPUT),
    ],
)
def test_class_by_algebra(body: str, number: int) -> None:
    rules = define(f"method m() on linear {{ {body} }}", SIZES).equation.rules
    assert [class_of(target, rule) for target, rule in rules.items()] == [number]


@pytest.mark.parametrize(
    ("inner", "number"),
    [("lora", DELTA), ("krona", DELTA), ("bitfit", DELTA), ("ia3", OUTPUT)],
)
def test_class_of_a_gate_is_that_of_what_it_lets_through(
    inner: str, number: int
) -> None:
    """A gate of `d` reads x, so its shift is a delta."""
    rule = gated([inner]).equations[0].rules["y"]
    assert class_of("y", rule) == number


@pytest.mark.parametrize(
    "names",
    [
        ("lora", "ia3"),
        ("bitfit", "ia3", "lora"),
        ("ia3_in", "krona"),
        ("dora", "lora", "bitfit"),
        ("oft", "lora"),
    ],
    ids="+".join,
)
def test_text_does_not_order_classes(names: tuple[str, ...]) -> None:
    one, other = stack(names), stack(names[::-1])
    left, right = (s.composed(True).outputs["y"] for s in (one, other))
    assert equal(left, right, one.env)


# --- what is chained, written out -------------------------------------------------

W, BIAS, X, Y = (LINEAR[name] for name in ("W", "bias", "x", "y"))
D, E = (ir.leaf(name, "param", ("out", "in")) for name in "DE")
R, S = (ir.leaf(name, "param", ("in", "in")) for name in "RS")
C, K = (ir.leaf(name, "param", ("out",)) for name in "ck")
ENV = {"out": 3, "in": 5}


def times(matrix: ir.Node, value: ir.Node) -> ir.Node:
    return ir.ein((matrix, value), ("oi", "bti"), "bto")


def matmul(a: ir.Node, b: ir.Node) -> ir.Node:
    return ir.ein((a, b), ("oj", "ji"), "oi")


def scaled(vector: ir.Node, value: ir.Node) -> ir.Node:
    return ir.ein((vector, value), ("o", "bto"), "bto")


def everywhere(vector: ir.Node) -> ir.Node:
    ones = ir.literal(1, X.axes[:2])
    return ir.ein((vector, ones), ("o", "bt"), "bto")


def after(*rules: tuple[str, ir.Node], biased: bool = True) -> ir.Node:
    equations = [Equation((), {target: rule}, (), {}) for target, rule in rules]
    return compose("linear", equations, biased).outputs["y"]


ADD_D = ("W", ir.add((W, D)))
ADD_E = ("y", ir.add((Y, times(E, X))))
ROTATE_R = ("W", matmul(W, R))
ROTATE_S = ("x", ir.ein((S, X), ("ji", "bti"), "btj"))
SCALE = ("y", scaled(C, Y))
SHIFT_K = ("bias", ir.add((BIAS, K)))


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ((ADD_D, ADD_E), ir.add((times(ir.add((W, D, E)), X), everywhere(BIAS)))),
        (
            (ADD_D, ROTATE_R, ADD_E),
            ir.add((times(matmul(ir.add((W, D, E)), R), X), everywhere(BIAS))),
        ),
        (
            (ROTATE_R, ROTATE_S),
            ir.add((times(matmul(matmul(W, R), S), X), everywhere(BIAS))),
        ),
        (
            (SHIFT_K, SCALE, ADD_D),
            ir.add(
                (
                    scaled(C, ir.add((times(ir.add((W, D)), X), everywhere(BIAS)))),
                    everywhere(K),
                )
            ),
        ),
    ],
    ids=["deltas", "deltas-then-input", "input-in-order", "bias-after-scale"],
)
def test_chain(rules: tuple[tuple[str, ir.Node], ...], expected: ir.Node) -> None:
    assert equal(after(*rules), expected, ENV)


def test_input_side_in_written_order() -> None:
    other = ("W", matmul(W, S))
    one = times(matmul(matmul(W, R), S), X)
    assert equal(after(ROTATE_R, other), ir.add((one, everywhere(BIAS))), ENV)
    assert not equal(after(ROTATE_R, other), after(other, ROTATE_R), ENV)


def test_later_rules_for_the_weight_see_the_rotated_one() -> None:
    """A rule that is neither additive nor on the right side comes after both."""
    left = ("W", ir.ein((C, W), ("o", "oi"), "oi"))
    expected = ir.ein((C, matmul(ir.add((W, D)), R)), ("o", "oi"), "oi")
    result = after(left, ROTATE_R, ADD_D)
    assert equal(result, ir.add((times(expected, X), everywhere(BIAS))), ENV)


def test_outputs_chain_in_written_order() -> None:
    shift = ("y", ir.add((scaled(K, Y), Y)))
    expected = ir.add((times(W, X), everywhere(BIAS)))
    expected = scaled(C, ir.add((scaled(K, expected), expected)))
    assert equal(after(shift, SCALE), expected, ENV)


def test_a_linear_without_bias_has_none() -> None:
    assert not ir.depends_on(after(ADD_D, SCALE, biased=False), {BIAS, Y})
    created = after(SHIFT_K, biased=False)
    assert equal(created, ir.add((times(W, X), everywhere(K))), ENV)


def test_edges_chain_in_written_order() -> None:
    h = HIDDEN["h"]
    half, tanh = ir.add((h,), (0.5,)), ir.add((h, ir.apply_map("tanh", h)))
    equations = [Equation((), {"h": rule}, (), {}) for rule in (half, tanh)]
    (result,) = compose("hidden", equations, True).outputs.values()
    assert result is ir.add((half, ir.apply_map("tanh", half)))


def test_a_later_method_reads_the_norm_of_what_the_earlier_gives() -> None:
    """Before a norm n is h itself; behind one it is not known here: a stage begins."""
    h, n = HIDDEN["h"], HIDDEN["n"]
    half = ir.add((h,), (0.5,))
    adapter = ir.add((h, ir.apply_map("tanh", n)))
    equations = [Equation((), {"h": r}, (), {}) for r in (adapter, half, adapter)]
    plain = compose("hidden", equations, True).outputs
    halved = ir.add((adapter,), (0.5,))
    assert plain == {"h": ir.add((halved, ir.apply_map("tanh", halved)))}
    staged = compose("hidden", equations, True, post_norm=True).outputs
    assert staged == {"h": halved, "h#2": adapter}


def test_norms_give_what_they_rewrite() -> None:
    g, c = NORM["g"], NORM["c"]
    d = ir.leaf("d", "param", ("hidden",))
    rules = {"c": ir.add((c, d))}
    one = Equation((), rules, (), {})
    assert compose("norm", [one], True).outputs == rules
    assert compose("norm", [one], False).outputs == {"c": d}
    swap = Equation((), {"g": ir.add((g, c)), "c": ir.add((c, g))}, (), {})
    assert compose("norm", [swap], True).outputs == swap.rules


def test_equal_dropouts_of_two_methods_are_two() -> None:
    names = ("lora_dropout", "lora_dropout")
    nodes = ir.walk(stack(names).composed(True).outputs["y"])
    drops = [node for node in nodes if isinstance(node, ir.Call)]
    assert sorted(drop.attrs for drop in drops) == [(0.1,), (0.1, 1)]


def test_declarations_losses_and_origins_of_all() -> None:
    parts = stack(("adalora", "gated_lora"))
    composed = parts.composed(True)
    assert [d.name for d in composed.declarations][:2] == ["adalora.P", "adalora.e"]
    assert len(composed.declarations) == 8
    assert len(composed.losses) == 1
    (gate,) = (n for n in ir.walk(composed.outputs["y"]) if isinstance(n, ir.Map))
    assert composed.origins[gate].text == "sigmoid(w(x) + c)"
