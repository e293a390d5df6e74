from __future__ import annotations

import pytest

from peftc.expr import ir
from peftc.expr.compose import compose
from peftc.expr.normal import canonical, concrete, equal, flatten
from peftc.expr.places import LINEAR
from peftc.expr.sizes import NotWhole, Size
from peftc.expr.splits import Mismatch
from tests.equations import define

SIZES = {"out": 24, "in": 36}
LORA = "param A[r, in] ~ normal(1), B[out, r] = 0"
KRONA = "param A[a, c] ~ normal(1), B[out/a, in/c] = 0"
SCALE = "param l[out] = 1"


def output(text: str, knobs: str = "", **given: int) -> tuple[ir.Node, dict[str, int]]:
    """y after the method of this body."""
    sizes = {**SIZES, **given}
    made = define(f"method m({knobs}) on linear {{ {text} }}", sizes)
    return compose("linear", [made.equation], biased=True).outputs["y"], dict(made.env)


def same(one: str, other: str, knobs: str = "", **given: int) -> bool:
    left, env = output(one, knobs, **given)
    right, _ = output(other, knobs, **given)
    return equal(left, right, env)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{LORA} W' = W + 2 * B @ A", f"{LORA} y' = y + 2 * B(A(x))"),
        (f"{LORA} W' = W + B @ A", f"{LORA} y' = y + B(A(x)) * 1"),
        (f"{LORA} W' = W + B @ A + B @ A", f"{LORA} W' = W + 2 * B @ A"),
        (f"{LORA} W' = (W + B @ A) * 3 - 2 * W", f"{LORA} W' = W + 3 * B @ A"),
        (f"{SCALE} y' = l * y", f"{SCALE} W' = diag(l) @ W bias' = l * bias"),
        (f"{SCALE} y' = l * y", f"{SCALE} W' = l * W bias' = bias * l"),
        (f"{SCALE} y' = l * (y - bias) + bias", f"{SCALE} W' = diag(l) @ W"),
        ("param l[in] = 1 x' = l * x", "param l[in] = 1 W' = W @ diag(l)"),
        ("param l[in] = 1 x' = l * x", "param l[in] = 1 y' = W(l * x) + bias"),
        ("param d[out] = 0 y' = y + d", "param d[out] = 0 bias' = bias + d"),
        (f"{LORA} W' = W + B @ A", f"{LORA} W' = W + sum[k: r](outer(B.T[k], A[k]))"),
        (f"{LORA} W' = W + eye(out) @ B @ A", f"{LORA} W' = W + B @ A @ eye(in)"),
        (f"{LORA} W' = W + B @ A", f"{LORA} W' = W + (A.T @ B.T).T"),
        (
            f"{LORA} {SCALE} y' = y + l * B(A(x)) * mean(A(x), r)",
            f"{LORA} {SCALE} y' = y + l * B(A(x)) * sum(A(x), r) / 4",
        ),
        (f"{LORA} y' = y + B(tanh(A(x)))", f"{LORA} y' = B(tanh(A(x))) + y"),
    ],
)
def test_equal_definitions(one: str, other: str) -> None:
    assert same(one, other, "r = 4")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"{LORA} W' = W + 2 * B @ A", f"{LORA} W' = W + 3 * B @ A"),
        (f"{LORA} W' = W + B @ A", f"{LORA} W' = W - B @ A"),
        (f"{SCALE} y' = l * y", f"{SCALE} W' = diag(l) @ W"),
        (f"{LORA} y' = y + B(tanh(A(x)))", f"{LORA} y' = y + B(A(x))"),
        (f"{LORA} y' = y + B(A(x))", f"{LORA} y' = y + B(A(detach(x)))"),
    ],
)
def test_different_definitions(one: str, other: str) -> None:
    assert not same(one, other, "r = 4")


def test_loha_is_a_low_rank_update_of_rank_r_squared() -> None:
    tensors = "param B1[out, r] = 0, A1[r, in] = 0, B2[out, r] = 0, A2[r, in] = 0"
    explicit = "sum[i: r](sum[j: r](outer(B1.T[i] * B2.T[j], A1[i] * A2[j])))"
    hadamard = "W' = W + (B1 @ A1) * (B2 @ A2)"
    assert same(f"{tensors} {hadamard}", f"{tensors} W' = W + {explicit}", "r = 3")
    assert not same(
        f"{tensors} {hadamard}", f"{tensors} W' = W + 2 * {explicit}", "r = 3"
    )


def test_kronecker_products_by_blocks() -> None:
    blocks = "blockgrid[i: a, j: c](A[i, j] * B)"
    assert same(
        f"{KRONA} W' = W + kron(A, B)", f"{KRONA} W' = W + {blocks}", "a = 3, c = 4"
    )


def test_views_of_one_axis_are_refined() -> None:
    """64 splits as 16 x 4 and as 8 x 8: what they have in common is 8 x 2 x 4."""
    n, m = (ir.leaf(x, "param", (Size.of(64),)) for x in "nm")
    one = ir.view(n, map(Size.of, (16, 4)))
    two = ir.view(m, map(Size.of, (8, 8)))
    total = ir.ein((one, ir.leaf("p", "param", (16, 4))), ("ab", "ab"), "ab")
    flat = ir.view(total, (Size.of(64),))
    other = ir.ein((two, ir.leaf("q", "param", (8, 8))), ("ab", "ab"), "ab")
    (term,) = flatten(ir.ein((flat, ir.view(other, (Size.of(64),))), "ii", ""))
    shapes = {str(node): [str(a) for a in node.axes] for node, _ in term.factors}
    assert {tuple(shape) for shape in shapes.values()} == {("8", "2", "4")}


def test_views_that_do_not_nest() -> None:
    n, m = (ir.leaf(x, "param", (Size.of(36),)) for x in "nm")
    p, q = ir.leaf("p", "param", (4, 9)), ir.leaf("q", "param", (6, 6))
    flat = [ir.view(x, (Size.of(36),)) for x in (p, q)]
    with pytest.raises(Mismatch, match="do not nest"):
        flatten(ir.ein((n, m, *flat), "iiii", ""))


def test_axes_of_one_do_not_disturb() -> None:
    a = ir.leaf("a", "param", (1, 6, 1))
    b = ir.view(ir.view(a, map(Size.of, (6,))), map(Size.of, (2, 3, 1)))
    (term,) = flatten(
        ir.ein((b, ir.leaf("c", "param", (2, 3, 1))), ("xyz", "xyz"), "y")
    )
    assert [axis.number for axis in term.axes(term.out)] == [3]


def test_a_diagonal_result_keeps_its_identity_matrix() -> None:
    v = ir.leaf("v", "param", (4,))
    (term,) = flatten(ir.ein((v, ir.eye(4)), ("i", "ij"), "ij"))
    assert sorted(map(ir.pretty, (node for node, _ in term.factors))) == ["eye(4)", "v"]
    assert flatten(ir.ein((v, ir.eye(4)), ("i", "ij"), "j"))[0].factors[0][0] is v


def test_terms_are_the_same_whatever_was_made_before() -> None:
    env = {**SIZES, "m.r": 4}
    node, _ = output(f"{LORA} param l[in] = 1 W' = (W + B @ A) @ diag(l)", "r = 4")
    (node,), _ = concrete([node], env)
    first = flatten(node)
    flatten(concrete([LINEAR["W"]], env)[0][0])
    second = flatten(node)
    assert [t.factors for t in first] == [t.factors for t in second]


def test_canonical_form_tries_orders_of_equal_factors() -> None:
    a = ir.leaf("a", "param", (4, 4))
    one = canonical([(a, (0, 1)), (a, (1, 2))], (0, 2))
    other = canonical([(a, (7, 5)), (a, (9, 7))], (9, 5))
    assert one == other
    assert one != canonical([(a, (0, 1)), (a, (2, 1))], (0, 2))


def test_numbers_for_sizes() -> None:
    node, _ = output(f"{KRONA} W' = W + kron(A, B)", "a = 3, c = 4")
    with pytest.raises(NotWhole, match=r"out/m\.a is not a positive .*: 24/5"):
        concrete([node], {**SIZES, "m.a": 5, "m.c": 4})


def test_a_count_of_features_becomes_a_number() -> None:
    mean = ir.apply_map("recip", ir.ein((ir.literal(1, (Size.of("in"),)),), "i", ""))
    assert concrete([mean], SIZES)[0] == [ir.literal(1 / 36)]


def test_too_many_terms() -> None:
    sums = [
        ir.add([ir.leaf(f"{x}{i}", "param", (4,)) for i in range(5)]) for x in "abcd"
    ]
    with pytest.raises(Mismatch, match="too many terms"):
        flatten(ir.ein(sums, "iiii", "i"), limit=100)
