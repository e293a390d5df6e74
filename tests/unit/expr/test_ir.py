from __future__ import annotations

import gc
import subprocess
import sys
import weakref

import pytest

from peftc.expr import ir
from peftc.expr.functions import ELEMENTWISE
from peftc.expr.sizes import Size

A = ir.leaf("A", "param", ("r", "in"))
B = ir.leaf("B", "param", ("out", "r"))
V = ir.leaf("v", "param", ("out",))
DELTA = ir.ein((B, A), ("or", "ri"), "oi")


def test_structural_equality_is_identity() -> None:
    assert ir.leaf("A", "param", ("r", "in")) is A
    assert ir.ein((A, B), ((7, 9), (8, 7)), (8, 9)) is DELTA
    assert ir.add((DELTA, DELTA)) is ir.add((DELTA,), (2,))
    assert ir.leaf("A", "buffer", ("r", "in")) is not A


def test_nothing_is_kept_alive() -> None:
    node = ir.apply_map("tanh", ir.leaf("only here", "param", ("out",)))
    dead = weakref.ref(node)
    del node
    gc.collect()
    assert dead() is None


PRINT_KEYS = """
from peftc.expr import ir
names = {order}
leaves = {{n: ir.leaf(n, "param", ("out",)) for n in names}}
print(ir.pretty(ir.add([leaves[n] for n in sorted(names)], [1, 2, 3])))
product = ir.ein([leaves[n] for n in names], "ooo", "o")
print(ir.pretty(product), product.key)
"""


def test_order_does_not_depend_on_what_was_made_before() -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", PRINT_KEYS.format(order=list(order))],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for order in ("abc", "cba")
    ]
    assert runs[0] == runs[1] != ""


def test_products_absorb_literals() -> None:
    two = ir.literal(2, (Size.of("out"), Size.of("in")))
    assert ir.ein((two, DELTA), ("oi", "oi"), "oi") is ir.add((DELTA,), (2,))
    wide = ir.ein((ir.literal(3, (Size.of("in"),)), V), ("i", "o"), "oi")
    assert ir.pretty(wide) == "(3.0*ein(a,b->ab; v, 1.0[in]))"
    assert ir.ein((two,), ("oi",), "io") is ir.literal(2, two.axes[::-1])


def test_a_summed_literal_is_a_count() -> None:
    ones = ir.literal(1, (Size.of("in"),))
    assert ir.pretty(ir.ein((ones,), ("i",), "")) == "ein(a->; 1.0[in])"


def test_sums_merge_and_cancel() -> None:
    twice = ir.add((V, ir.add((V,), (1,))))
    assert twice is ir.add((V,), (2,))
    assert ir.add((twice, V), (1, -2)) is ir.literal(0, V.axes)
    assert ir.add((ir.literal(2, V.axes), ir.literal(3, V.axes))) is ir.literal(
        5, V.axes
    )
    inner = ir.add((V, ir.literal(1, V.axes)), (2, 3))
    assert ir.pretty(ir.add((inner, V), (0.5, 1))) == "(2.0*v + 1.5*1.0[out])"


def test_axes_must_agree() -> None:
    with pytest.raises(TypeError, match=r"cannot add \[out\] to \[r, in\]"):
        ir.add((A, V))
    with pytest.raises(TypeError, match="axis mismatch: r against out"):
        ir.ein((A, V), ("ri", "r"), "i")
    with pytest.raises(TypeError, match="different numbers of elements"):
        ir.view(A, (Size.of("r"),))
    with pytest.raises(TypeError, match="no elementwise function softmax"):
        ir.apply_map("softmax", V)


def test_views_collapse() -> None:
    flat = ir.view(A, (Size.of("r") * "in",))
    assert ir.view(flat, A.axes) is A
    assert ir.view(ir.literal(2, A.axes), flat.axes) is ir.literal(2, flat.axes)


def test_functions_of_constants_are_constants() -> None:
    assert ir.apply_map("exp", ir.literal(0, V.axes)) is ir.literal(1, V.axes)
    assert isinstance(ir.apply_map("log", ir.literal(0)), ir.Map)
    assert ir.apply_map("identity", V) is V
    for fn in ELEMENTWISE:
        assert isinstance(ir.apply_map(fn, ir.literal(0.5)), ir.Literal)


def test_deep_expressions_need_no_deep_stack() -> None:
    node: ir.Node = V
    for _ in range(20_000):
        node = ir.apply_map("tanh", node)
    assert len(ir.walk(node)) == 20_001
    assert ir.depends_on(node, {V})
    (new,) = ir.replace([node], {V: ir.leaf("u", "param", ("out",))})
    assert not ir.depends_on(new, {V})


def test_replace_is_simultaneous_and_carries_origins() -> None:
    u = ir.leaf("u", "param", ("out",))
    total = ir.add((u, ir.apply_map("tanh", V)), (2, 1))
    origins: dict[ir.Node, str] = {total: "text", V: "v"}
    (new,) = ir.replace([total], {u: V, V: u}, origins)
    assert new is ir.add((V, ir.apply_map("tanh", u)), (2, 1))
    assert origins[new] == "text"


def test_text() -> None:
    node = ir.call("drop", (ir.add((DELTA,), (0.5,)),), (0.1,), DELTA.axes)
    assert ir.pretty(node) == "drop((0.5*ein(ab,ca->cb; A, B)), 0.1)"
    assert ir.pretty(ir.view(A, (Size.of("r") * "in",))) == "view(A as [in*r])"
    assert ir.pretty(ir.eye("r")) == "eye(r)"
