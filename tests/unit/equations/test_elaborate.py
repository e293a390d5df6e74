"""Elaboration: names, axes and rules of a clause as IR; no tensor is involved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from peftc.diagnostics.core import PeftcError
from peftc.expr.elaborate import Body, elaborate, symbolic
from peftc.expr.ir import Call, Leaf, add, ein, leaf, walk
from peftc.expr.places import LINEAR, NORM
from peftc.expr.sizes import show
from peftc.syntax.parse import parse_method

if TYPE_CHECKING:
    from peftc.expr.equation import Equation
    from peftc.expr.ir import Node

SIZES = {"in": 24, "out": 36}
KNOWN = {"linear": SIZES, "hidden": {"hidden": 48}, "norm": {"hidden": 48}}


def equation(body: str, place: str = "linear", **more: Any) -> Equation:
    """The equation of a body; keywords are knobs, `prefix` and `inner`."""
    prefix, inner = more.pop("prefix", ""), more.pop("inner", None)
    knobs = ", ".join(more)
    method = parse_method(f"method m({knobs}) on {place} {{\n{body}\n}}")
    sizes = KNOWN.get(place, SIZES)
    return elaborate(method.clauses[0], more, sizes, prefix, inner)


def leaves(node: Node) -> set[str]:
    return {part.name for part in walk(node) if isinstance(part, Leaf)}


# --- names -------------------------------------------------------------------------


LORA = "param A[r, in] ~ kaiming(5), B[out, r] = 0\nW' = W + s * B @ A"


def test_tensors_and_sizes_carry_the_prefix() -> None:
    found = equation(LORA, r=8, s=2.0, prefix="lora#2.")
    assert [d.name for d in found.declarations] == ["lora#2.A", "lora#2.B"]
    assert show(found.declarations[0].axes) == "[lora#2.r, in]"
    assert leaves(found.rules["W"]) == {"W", "lora#2.A", "lora#2.B"}


def test_two_applications_of_different_rank_never_meet() -> None:
    first = equation(LORA, r=8, s=2.0, prefix="lora.")
    second = equation(LORA, r=4, s=2.0, prefix="lora#2.")
    assert first.declarations[0].axes != second.declarations[0].axes
    assert add((first.rules["W"], second.rules["W"])).axes == LINEAR["W"].axes


def test_two_knobs_of_one_number_are_two_axes() -> None:
    with pytest.raises(PeftcError) as caught:
        equation("param A[r, in], B[out, k]\nW' = W + B @ A", r=8, k=8)
    assert [d.code for d in caught.value.diagnostics] == ["PEFT233"]


def test_numbers_of_knobs_are_in_the_coefficients() -> None:
    found = equation(LORA, r=8, s=2.0, prefix="p.")
    a, b = leaf("p.A", "param", ("p.r", "in")), leaf("p.B", "param", ("out", "p.r"))
    product = ein((b, a), ("or", "ri"), "oi")
    assert found.rules["W"] is add((LINEAR["W"], product), (1, 2))


def test_every_node_knows_where_it_came_from() -> None:
    found = equation(LORA, r=8, s=2.0)
    span = found.origins[found.rules["W"]]
    assert (span.line, span.text) == (3, "W + s * B @ A")


# --- declarations ------------------------------------------------------------------


def test_initial_values() -> None:
    body = """param A[r, in] ~ kaiming(5), l[out], k[out] = 1, m[out] = norm(W, in)
    shared buffer P[r, r] ~ uniform(-0.5, 2 * s)
    y' = l * k * m * y + norm2(P) * norm2(A) * y"""
    found = equation(body, r=8, s=0.5)
    by_name = {d.name: d for d in found.declarations}
    assert by_name["A"].init.distribution == "kaiming"
    assert by_name["A"].init.args == (5.0,)
    assert by_name["P"].init.args == (-0.5, 1.0)
    assert (by_name["P"].kind, by_name["P"].shared) == ("buffer", True)
    starts = {n: repr(d.init.node) for n, d in by_name.items() if d.init.node}
    assert starts == {"l": "0.0", "k": "1.0", "m": starts["m"]}
    node = by_name["m"].init.node
    assert node is not None
    assert leaves(node) == {"W"}


def test_sizes_may_be_sums_products_and_quotients() -> None:
    body = "param A[2*r + 1, in/4], B[(r*r - r)/2]\ny' = norm2(A) * norm2(B) * y"
    found = equation(body, r=8, prefix="p.")
    shapes = [
        [a.value({"p.r": 8, **SIZES}) for a in d.axes] for d in found.declarations
    ]
    assert shapes == [[17, 6], [28]]


# --- rules -------------------------------------------------------------------------


def test_the_unprimed_name_is_the_value_before() -> None:
    found = equation("param k[in]\nx' = k * x\nW' = W * k")
    assert "x" in leaves(found.rules["x"])
    assert leaves(found.rules["W"]) == {"W", "k"}


def test_y_takes_in_the_rules_so_far_and_is_then_all_there_is() -> None:
    found = equation("param D[out, in], l[out]\nW' = W + D\ny' = l * y")
    assert set(found.rules) == {"y"}
    assert leaves(found.rules["y"]) == {"y", "x", "D", "l"}


def test_rules_of_weights_alone_stay_apart() -> None:
    found = equation("param D[out, in], l[out]\nW' = W + D\nbias' = bias + l")
    assert set(found.rules) == {"W", "bias"}


def test_edges_and_norms() -> None:
    edge = equation("param D[hidden]\nh' = h + D * u + n", "hidden")
    assert leaves(edge.rules["h"]) == {"D", "h", "u", "n"}
    norm = equation("param d[hidden]\ng' = g + d\nc' = c + g", "norm")
    assert leaves(norm.rules["c"]) == set(NORM)


def test_a_redirection_rewrites_a_linear() -> None:
    assert set(equation("param l[in]\nx' = l * x", "ffn.down").rules) == {"x"}


def test_losses() -> None:
    body = "param A[r, in]\nW' = W @ A.T @ A\nloss += norm2(A @ A.T - eye(r))"
    (loss,) = equation(body, r=4).losses
    assert loss.axes == ()


# --- choice, dropout ---------------------------------------------------------------


def test_only_the_chosen_branch_is_in_the_equation() -> None:
    body = "param a[out], c[out]\ny' = y + choose(wide, a, c)"
    assert leaves(equation(body, wide=True).rules["y"]) == {"y", "a"}
    assert leaves(equation(body, wide=False).rules["y"]) == {"y", "c"}


@pytest.mark.parametrize(("p", "calls"), [(0.0, []), (0.1, [(0.1,)])])
def test_no_dropout_is_no_node(p: float, calls: list[tuple[float, ...]]) -> None:
    found = equation("param l[in]\nx' = drop(l * x, p)", p=p)
    nodes = walk(found.rules["x"])
    assert [n.attrs for n in nodes if isinstance(n, Call)] == calls


def test_function_knobs() -> None:
    body = "param D[hidden, hidden]\nh' = h + act(D(h))"
    with_gelu = equation(body, "hidden", act="gelu").rules["h"]
    assert with_gelu is not equation(body, "hidden", act="relu").rules["h"]
    plain = equation(body.replace("act(D(h))", "D(h)"), "hidden").rules["h"]
    assert equation(body, "hidden", act="identity").rules["h"] is plain


def test_what_depends_on_numbers_is_checked_at_the_site() -> None:
    with pytest.raises(PeftcError) as caught:
        equation("param l[out]\ny' = y + l / (r - 8)", r=8)
    assert [d.code for d in caught.value.diagnostics] == ["PEFT246"]


# --- wrapped methods ---------------------------------------------------------------

GATE = "param w[in]\ny' = y + sigmoid(w(x)) * (inner(y) - y)"


def test_what_is_wrapped_cancels_but_for_its_change() -> None:
    inner = equation("param D[out, in]\nW' = W + D", prefix="full.")
    found = equation(GATE, prefix="gate.", inner={"inner": [inner]})
    assert leaves(found.rules["y"]) == {"y", "x", "gate.w", "full.D"}
    assert [d.name for d in found.declarations] == ["gate.w", "full.D"]


def test_wrapping_nothing_changes_nothing() -> None:
    """A plan asks for a wrapper's own tensors before it has what is wrapped."""
    found = equation(GATE, inner={"inner": []})
    assert found.rules["y"] is LINEAR["y"]
    assert [d.name for d in found.declarations] == ["w"]


def test_an_output_rule_is_wrapped_as_it_is() -> None:
    inner = equation("param l[out]\ny' = l * y", prefix="ia3.")
    found = equation("param q[]\ny' = q * inner(y)", inner={"inner": [inner]})
    assert leaves(found.rules["y"]) == {"y", "q", "ia3.l"}


def test_a_wrapped_method_on_a_norm() -> None:
    inner = equation("param d[hidden]\ng' = g + d", "norm", prefix="i.")
    body = "param q[]\ng' = q * inner(g)\nc' = q * inner(c)"
    found = equation(body, "norm", inner={"inner": [inner]})
    assert leaves(found.rules["g"]) == {"g", "q", "i.d"}
    assert leaves(found.rules["c"]) == {"c", "q"}


# --- axes by name ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "axes"),
    [
        ("l * W", "[out, in]"),
        ("W * k", "[out, in]"),
        ("k * W.T", "[in, out]"),
        ("W * W.T", "[out, in]"),
        ("l * y", "[b, t, out]"),
        ("y - l", "[b, t, out]"),
        ("2 / W", "[out, in]"),
        ("R * R", "[n, n]"),
        ("B @ R", "[out, n]"),
        ("W @ k", "[out]"),
        ("k(x)", "[b, t]"),
        ("R(A(x))", "[b, t, n]"),
        ("mean(A(x), t)", "[b, n]"),
        ("mean(A(x), t) * A(x)", "[b, t, n]"),
        ("outer(B, k)", "[out, n, in]"),
        ("kron(A.T, B)", "[in*out, n^2]"),
        ("norm(W)", "[]"),
        ("concat[i: n](R[i])", "[n^2]"),
        ("sum[i: n](outer(R[i], l))", "[n, out]"),
    ],
)
def test_axes_of_results(text: str, axes: str) -> None:
    body = f"param l[out], k[in], R[n, n], B[out, n], A[n, in]\nresult = {text}"
    method = parse_method(f"method m(n: size) on linear {{ {body} }}")
    reading = Body(symbolic("linear", {"n": "size"}))
    for statement in method.clauses[0].body:
        reading.take(statement)
    reading.errors.check()
    value = reading.scope.tensors["result"]
    assert value is not None
    assert show(value.axes) == axes
