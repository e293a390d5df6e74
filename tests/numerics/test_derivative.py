"""Adjoints as expressions against torch's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from peftc.expr import ir
from peftc.expr.derivative import CALLS as RULES
from peftc.expr.derivative import WITHOUT, NoDerivativeError, adjoints
from peftc.expr.dropout import in_training
from peftc.expr.elementwise_derivatives import DERIVATIVES
from peftc.expr.evaluate import evaluate
from peftc.expr.functions import CALLS, DERIVED_CALLS, ELEMENTWISE

if TYPE_CHECKING:
    from torch import Tensor

A, B = (ir.leaf(name, "param", (4, 4)) for name in "ab")
BATCHES = ir.leaf("s", "param", (3, 4, 4))
VECTOR = ir.leaf("v", "param", (3,))
PLACES, TURNED = ir.leaf("i", "buffer", (3,)), ir.leaf("p", "buffer", (4, 4))
G = "g"


def tensors() -> dict[str, Tensor]:
    """Values of the leaves; matrices that can be solved with."""
    stream = torch.Generator().manual_seed(3)
    shapes = {"a": (4, 4), "b": (4, 4), "s": (3, 4, 4), "v": (3,), "t": (2, 5, 4)}
    made = {
        name: torch.randn(shape, generator=stream, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    made["a"] = made["a"] + 3 * torch.eye(4, dtype=torch.float64)
    places = torch.rand((4, 4), generator=stream).argsort(-1)
    return made | {"i": torch.tensor([3, 9, 3]), "p": places}


def check(node: ir.Node, training: bool = False) -> None:
    """The adjoint of every trained leaf of a node."""
    values = tensors()
    trained = [n for n in ir.walk(node) if isinstance(n, ir.Leaf) and n.kind == "param"]
    leaves = {n.name: values[n.name].requires_grad_() for n in trained}
    (result,) = evaluate([node], values, {}, training=training)
    g = torch.linspace(-1, 2, result.numel(), dtype=torch.float64).view_as(result)
    wanted = (
        torch.autograd.grad(
            (result * g).sum(), list(leaves.values()), allow_unused=True
        )
        if result.requires_grad
        else [None] * len(trained)
    )
    made = adjoints([(node, ir.leaf(G, "input", node.axes))], trained)
    found = evaluate(made, values | {G: g}, {}, training=training)
    for leaf, one, other in zip(trained, found, wanted, strict=True):
        other = torch.zeros_like(one) if other is None else other
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12, msg=leaf.name)


# --- elementwise functions --------------------------------------------------------


def test_every_function_of_numbers_has_a_derivative() -> None:
    assert DERIVATIVES.keys() == ELEMENTWISE.keys()


@pytest.mark.parametrize("fn", sorted(ELEMENTWISE))
def test_derivative_of_a_function_of_numbers(fn: str) -> None:
    points = [-30.0, -2.5, -0.3, 0.0, 0.4, 1.0, 3.0, 18.0]
    if fn in ("log", "sqrt", "rsqrt", "recip"):
        points = [0.2, 1.0, 7.5]
    leaf = ir.leaf("e", "param", (len(points),))
    given = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    node = ir.apply_map(fn, leaf)
    (value,) = evaluate([node], {"e": given}, {})
    wanted = torch.zeros_like(given)
    if value.requires_grad:
        (wanted,) = torch.autograd.grad(value.sum(), [given])
    (made,) = adjoints([(node, ir.literal(1, leaf.axes))], [leaf])
    (found,) = evaluate([made], {"e": given}, {})
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


# --- functions of whole tensors ------------------------------------------------------


def turned(node: ir.Node) -> ir.Node:
    return ir.call("permute", (node, TURNED), (), node.axes)


CASES: dict[str, list[ir.Node]] = {
    "detach": [ir.add((A, ir.call("detach", (B,), (), A.axes)))],
    "fit": [
        ir.call("fit", (A,), (), (A.axes[0], VECTOR.axes[0])),
        ir.call("fit", (A,), (), (A.axes[0], A.axes[0] * 2)),
    ],
    "fwht": [ir.call("fwht", (A,), (), A.axes)],
    "gather": [ir.call("gather", (A, PLACES), (), PLACES.axes)],
    "ifft2": [ir.call("ifft2", (A,), (), A.axes)],
    "permute": [turned(A)],
    "scatter": [ir.call("scatter", (VECTOR, PLACES), (), A.axes)],
    "solve": [
        ir.call("solve", (A, B), (), B.axes),
        ir.call("solve", (BATCHES, BATCHES), (), BATCHES.axes),
        ir.call("solve", (A, A), (), A.axes),
    ],
    "topmask": [
        ir.ein((A, ir.call("topmask", (B,), (3,), B.axes)), ("ij", "ij"), "ij")
    ],
    "training": [ir.call("training", (A, turned(B)), (), A.axes)],
}


def test_every_function_of_tensors_has_a_rule_or_a_reason() -> None:
    assert {*RULES, *WITHOUT} >= {*CALLS}
    assert not RULES.keys() & WITHOUT.keys()
    assert RULES.keys() - CASES.keys() <= {*DERIVED_CALLS}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fn", sorted(CASES))
def test_derivative_of_a_function_of_tensors(fn: str, training: bool) -> None:
    for node in CASES[fn]:
        check(node, training)


def test_indices_that_repeat_collect_their_adjoints() -> None:
    """Also along the last axis, where `permute` need not get a permutation."""
    value, places = tensors()["a"], torch.tensor([[0, 0, 1, 3]] * 4)
    (made,) = adjoints([(turned(A), ir.literal(1, A.axes))], [A])
    (found,) = evaluate([made], {"a": value, "p": places}, {})
    assert found.tolist() == [[2, 1, 0, 1]] * 4


@pytest.mark.parametrize("fn", sorted(WITHOUT))
def test_without_a_derivative_there_is_a_reason(fn: str) -> None:
    node = ir.call(fn, (A, B, B, B, B), (0.5,), A.axes)
    with pytest.raises(NoDerivativeError, match=f"^{fn}: {WITHOUT[fn]}$"):
        adjoints([(node, A)], [B])
    assert adjoints([(node, A)], [VECTOR]) == [ir.literal(0, VECTOR.axes)]


def test_an_unknown_function_has_no_derivative() -> None:
    with pytest.raises(NoDerivativeError, match="other: there is no rule for it"):
        adjoints([(ir.call("other", (A,), (), A.axes), B)], [A])


# --- products, sums, views -----------------------------------------------------------

PRODUCTS: dict[str, ir.Node] = {
    "matrix": ir.ein((A, B), ("ij", "jk"), "ik"),
    "square": ir.ein((A, A), ("ij", "ij"), "i"),
    "trace": ir.ein((A, B), ("ii", "jk"), "jk"),
    "diagonal": ir.ein((BATCHES, A), ("bii", "ij"), "bj"),
    "summed": ir.ein((BATCHES,), ("bij",), "j"),
    "alone": ir.ein((A, VECTOR), ("ij", "k"), "k"),
    "broadcast": ir.ein((VECTOR, ir.literal(2, A.axes)), ("k", "ij"), "kij"),
    "kron": ir.view(ir.ein((A, B), ("ij", "kl"), "ikjl"), (A.axes[0] * 4,) * 2),
    "identity": ir.ein((VECTOR, ir.eye(3)), ("i", "ij"), "ij"),
    "sum": ir.add((A, B, ir.ein((A, B), ("ij", "ij"), "ij")), (2, -0.5, 3)),
    "nested": ir.apply_map("tanh", ir.add((A, ir.apply_map("sin", A)))),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_derivative_of_a_product(name: str) -> None:
    check(PRODUCTS[name])


def test_several_outputs_add_up() -> None:
    pairs = [(A, B), (ir.ein((A,), ("ij",), "ji"), B), (A, A)]
    (made,) = adjoints(pairs, [A])
    assert made is ir.add((B, ir.ein((B,), ("ij",), "ji"), A))


# --- dropout -------------------------------------------------------------------------


def test_masks_are_what_dropout_multiplies_with() -> None:
    x = ir.leaf("t", "input", ("b", 5, 4))
    once = ir.call("drop", (x,), (0.5,), x.axes)
    twice = ir.call("drop", (ir.add((once, x)),), (0.25,), x.axes)
    root = ir.add((once, twice, ir.call("training", (twice, x), (), x.axes)))
    (made,), masks = in_training([root])
    assert [(mask.leaf.name, mask.p) for mask in masks] == [
        ("mask", 0.5),
        ("mask#2", 0.25),
    ]
    env, values = {"b": 2}, tensors()
    torch.manual_seed(5)
    (wanted,) = evaluate([root], values, env, training=True)
    torch.manual_seed(5)
    drawn = {
        mask.leaf.name: torch.nn.functional.dropout(
            torch.ones_like(values["t"]), mask.p
        )
        for mask in masks
    }
    (found,) = evaluate([made], values | drawn, env)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
