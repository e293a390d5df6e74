"""Which equations go into the weights, and why the others do not."""

from __future__ import annotations

import pytest

from peftc.expr import ir
from peftc.expr.merge import Merged, Refusal, derive_merge
from peftc.expr.normal import concrete, equal
from peftc.expr.places import LINEAR
from peftc.view import Kind, Site
from tests.equations import CASES, Stack, case, define, gated, stack

REASONS = {
    "compacter": ("h passes through gelu", "gelu(D(h) + bd)"),
    "gated_lora": ("x passes through sigmoid", "sigmoid(w(x) + c)"),
    "adapter": ("h passes through gelu", "act(D(h) + bd)"),
    "mixture": ("x passes through sigmoid", "sigmoid(w[k](x))"),
    "parallel": ("the result depends on u", "D(u)"),
    "pooled_lora": ("the result depends on real", "g * real"),
    "swiglu": ("h passes through silu", "silu(G(h))"),
    "unipelt_lora": ("x passes through sigmoid", "sigmoid(w(x))"),
}
MERGEABLE = [
    name for name in CASES if name not in REASONS and not name.startswith("rows")
]


def site_of(kind: Kind, biased: bool, weight: bool = True) -> Site:
    return Site(
        key="m:q",
        role="q",
        kind=kind,
        owner="m",
        sizes=(),
        dtype="float32",
        weight="m.weight" if weight else "",
        bias="m.bias" if biased else "",
    )


def merge(methods: Stack, biased: bool = True, weight: bool = True) -> Merged | Refusal:
    site = site_of(methods.kind, biased, weight)
    return derive_merge(methods.composed(biased), methods.env, site)


def of_body(body: str, kind: str = "linear", biased: bool = True) -> Merged | Refusal:
    sizes = {"out": 6, "in": 8, "hidden": 6}
    made = define(f"method m(r = 2) on {kind} {{ {body} }}", sizes)
    return merge(Stack((made.equation,), made.kind, made.env), biased)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("name", MERGEABLE)
def test_merges(name: str, biased: bool) -> None:
    merged = merge(stack([name]), biased)
    assert isinstance(merged, Merged)
    needs_bias = name in ("bitfit", "ssf", "loreft", "scale_shift")
    assert merged.creates_bias == (needs_bias and not biased)
    assert (merged.bias is None) == (not biased and not needs_bias)


@pytest.mark.parametrize("name", REASONS)
def test_refuses_with_the_term_that_is_to_blame(name: str) -> None:
    reason, text = REASONS[name]
    refusal = merge(stack([name]))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == reason
    assert refusal.span
    assert refusal.span.text == text


@pytest.mark.parametrize("name", ["rows", "rows_pooled"])
def test_rows_are_in_no_weight(name: str) -> None:
    refusal = merge(stack([name]))
    assert refusal == Refusal("queries attend to rows that no weight gives")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("param w[in] = 0 y' = y * w(x)", "x occurs more than once in one product"),
        ("y' = y + y * y", "x occurs more than once in one product"),
        ("y' = y - mean(y, t)", "x is mixed over tokens"),
        ("param d[out] = 0 y' = y + tanh(d) * y", ""),
        ("param d[out] = 0 y' = tanh(y) + d", "x passes through tanh"),
        ("param d[out] = 0 y' = y + d * (y - y)", ""),
    ],
)
def test_reasons(body: str, reason: str) -> None:
    result = of_body(body)
    assert (result.reason if isinstance(result, Refusal) else "") == reason


def test_a_gate_never_merges() -> None:
    refusal = merge(gated(["lora"]))
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "x passes through sigmoid"


def test_dropout_and_detach_are_looked_through() -> None:
    lora = "param A[r, in] ~ normal(1), B[out, r] = 0"
    plain = of_body(f"{lora} y' = y + B(A(x))")
    dropped = of_body(f"{lora} y' = y + drop(B(detach(A(drop(x, 0.5)))), 0.5)")
    assert isinstance(plain, Merged)
    assert plain == dropped


def test_weights_merge_as_they_are_written() -> None:
    lora = "param A[r, in] ~ normal(1), B[out, r] = 0"
    merged = of_body(f"{lora} W' = W + 0.5 * B @ A")
    assert isinstance(merged, Merged)
    (weight, bias), _ = concrete((LINEAR["W"], LINEAR["bias"]), {"out": 6, "in": 8})
    a, b = (ir.leaf(f"m.{n}", "param", s) for n, s in (("A", (2, 8)), ("B", (6, 2))))
    product = ir.ein((b, a), ("or", "ri"), "oi")
    assert merged.weight is ir.add((weight, product), (1, 0.5))
    assert merged.bias is bias


def test_several_methods_merge_together() -> None:
    merged = merge(stack(("lora", "ia3", "bitfit", "oft")))
    assert isinstance(merged, Merged)
    assert merge(stack(("bitfit", "oft", "ia3", "lora"))) == merged


@pytest.mark.parametrize("name", ["lora", "ssf", "ia3_in"])
def test_a_hundred_methods_merge(name: str) -> None:
    assert isinstance(merge(stack([name] * 100)), Merged)


def test_an_affine_edge_merges_into_its_linear() -> None:
    merged = of_body("param g[hidden] = 1, s[hidden] = 0 h' = g * h + s", "hidden")
    assert isinstance(merged, Merged)
    g, weight = (
        ir.leaf(*fields)
        for fields in (("m.g", "param", (6,)), ("W", "weight", (6, "in")))
    )
    expected = ir.ein((g, weight), ("o", "oi"), "oi")
    assert equal(merged.weight, expected, {"in": 8})


def test_an_edge_without_a_linear_does_not() -> None:
    refusal = merge(stack(["loreft"]), weight=False)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "the edge is not the output of a linear"


@pytest.mark.parametrize("biased", [True, False])
def test_norms(biased: bool) -> None:
    d = ir.leaf("scale_shift.dc", "param", (21,))
    merged = merge(stack(["scale_shift"]), biased)
    assert isinstance(merged, Merged)
    c = ir.leaf("c", "weight", (21,))
    assert merged.bias is (ir.add((c, d)) if biased else d)
    assert case("scale_shift").kind == "norm"
